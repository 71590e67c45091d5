"""The windows of a track, seeked and decoded onto a spool; all of it is decoded only where seeking will not do.

A file is suspected as soon as a window is shorter than it should be, or damaged: then the whole
is decoded, with second opinion, and the windows are cut out of that.

Axes: S samples, R rows (frames, or samples of a waveform), M mel bands.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import soundfile

from preprocessing.decode.container import scan_mpeg_duration_s, sniff_format, stated_duration_s
from preprocessing.decode.decoders import (
    FORMATS_WITHOUT_DURATION,
    SILENCE_PEAK,
    RatedBlock,
    TimeRange,
    WaveBlocks,
    attempt_decode,
    decode_blocks,
    ffmpeg_blocks,
    libsndfile_blocks,
    read_head,
)
from preprocessing.decode.settings import WindowSettings
from preprocessing.decode.spool import SpooledWindow
from preprocessing.decode.windows import (
    DecodeRange,
    FrameRange,
    PeakMeter,
    decode_range_for,
    place_windows,
    slice_wave,
)
from preprocessing.errors import BadAudio
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel_blocks


def spool_windows(
    path: Path,
    spool: BinaryIO,
    *,
    mel: MelSettings,
    windows: WindowSettings,
    as_waves: bool,
    max_duration_s: float,
) -> list[SpooledWindow]:
    """Append windows of a track to a spool: spectrograms, or the waveforms that they are made of, as raw float32.

    Windows in which nothing is heard are left out.
    Raises: BadAudio if the file cannot be used, or nothing is heard in any window; OSError if it cannot be
        read now, or the spool cannot be written.
    """
    append = partial(_append_wave if as_waves else _append_mel, spool=spool, mel=mel)
    told = _seek(append, path, mel, windows, max_duration_s)
    if told is None:
        frame_bytes = 4 * (mel.hop if as_waves else mel.bands)
        told = _cut_from_whole(append, path, mel, windows, max_duration_s, frame_bytes=frame_bytes)
    spool.flush()
    return told


Append = Callable[
    [WaveBlocks], tuple[int, int]
]  # onto the spool; gives where that starts, and how many frames


def _append_mel(waves: WaveBlocks, *, spool: BinaryIO, mel: MelSettings) -> tuple[int, int]:
    start_byte, frames = spool.tell(), 0
    for mel_FM in log_mel_blocks(waves, mel):
        spool.write(mel_FM.data)
        frames += len(mel_FM)
    return start_byte, frames


def _append_wave(waves: WaveBlocks, *, spool: BinaryIO, mel: MelSettings) -> tuple[int, int]:
    """Raises: BadAudio if there are too few samples for one frame."""
    start_byte, samples = spool.tell(), 0
    for wave_S in waves:
        spool.write(np.ascontiguousarray(wave_S).data)
        samples += wave_S.size
    if samples < mel.window:
        raise BadAudio("too-short", f"{samples} samples; need {mel.window} (one window)")
    return start_byte, 1 + (samples - mel.window) // mel.hop


def _seek(
    append: Append, path: Path, mel: MelSettings, windows: WindowSettings, max_duration_s: float
) -> list[SpooledWindow] | None:
    """Spool the windows of a track that seeking finds undamaged; None if the whole must be decoded to know."""
    head, _ = read_head(path)
    kind = sniff_format(head)
    if windows.whole_track or kind is None:
        return None
    stated_s = None
    if kind == "mpeg":
        stated_s = stated_duration_s(head) or scan_mpeg_duration_s(path)
    place = partial(_placed, mel=mel, windows=windows, max_duration_s=max_duration_s)
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError:
        return None if kind == "mpeg" else _seek_with_ffmpeg(append, path, place, mel)
    with file:
        try:
            return _seek_with_libsndfile(append, file, stated_s, place, mel)
        except soundfile.LibsndfileError:
            return None


def _placed(
    duration_s: float, *, mel: MelSettings, windows: WindowSettings, max_duration_s: float
) -> list[FrameRange]:
    """Place windows over a track that should play so long; none if that is to be decoded from end to end."""
    frames = mel.count_frames(duration_s)
    if duration_s > max_duration_s or windows.covers_track(frames, mel):
        return []
    return place_windows(frames, windows, mel)


Place = Callable[[float], list[FrameRange]]


def _seek_with_libsndfile(
    append: Append, file: soundfile.SoundFile, stated_s: float | None, place: Place, mel: MelSettings
) -> list[SpooledWindow] | None:
    rate_hz = file.samplerate
    if stated_s is None and file.format != "MP3":  # for MP3 that is an estimate
        stated_s = file.frames / rate_hz
    if stated_s is None:
        return None

    def blocks(stretch: DecodeRange) -> Iterator[RatedBlock]:
        file.seek(round(stretch.start_s * rate_hz))  # an error beyond what it takes for the end
        return libsndfile_blocks(file, round(stretch.duration_s * rate_hz))

    return _each_window(append, blocks, place(stated_s), stated_s, rate_hz, mel)


def _seek_with_ffmpeg(
    append: Append, path: Path, place: Place, mel: MelSettings
) -> list[SpooledWindow] | None:
    try:
        with av.open(str(path), mode="r", metadata_errors="replace") as container:
            if not container.streams.audio or container.format.name in FORMATS_WITHOUT_DURATION:
                return None
            rate_hz, stated = container.streams.audio[0].rate, container.duration
            if not rate_hz or not stated:
                return None
            stated_s = stated / av.time_base

            def blocks(stretch: DecodeRange) -> Iterator[RatedBlock]:
                return ffmpeg_blocks(container, TimeRange(stretch.start_s, stretch.duration_s))

            return _each_window(append, blocks, place(stated_s), stated_s, rate_hz, mel)
    except av.error.FFmpegError:
        return None  # whoever decodes the whole finds out why


def _each_window(
    append: Append,
    blocks: Callable[[DecodeRange], Iterator[RatedBlock]],
    spans: list[FrameRange],
    stated_s: float,
    rate_hz: int,
    mel: MelSettings,
) -> list[SpooledWindow] | None:
    """Spool each window that is heard; None if there is none, or one is not all that was stated."""
    told = []
    for span in spans:
        stretch = decode_range_for(span, rate_hz, mel)
        wanted_s = TimeRange(stretch.start_s, stretch.duration_s).expected_duration_s(stated_s)
        attempt = attempt_decode(
            partial(_append_kept, append, stretch),
            mel.sample_rate_hz,
            float("inf"),
            blocks(stretch),
            wanted_s,
        )
        if attempt.needs_fallback:
            return None
        if attempt.peak >= SILENCE_PEAK:
            start_byte, frames = attempt.results[0]
            told.append(SpooledWindow(span.start, frames, start_byte))
    return told or None


def _append_kept(append: Append, stretch: DecodeRange, waves: WaveBlocks) -> tuple[int, int]:
    return append(slice_wave(waves, stretch.skip_samples, stretch.keep_samples))


def _cut_from_whole(
    append: Append,
    path: Path,
    mel: MelSettings,
    windows: WindowSettings,
    max_duration_s: float,
    *,
    frame_bytes: int,
) -> list[SpooledWindow]:
    """Spool a whole track, and say where in that its windows lie.

    Raises: BadAudio as `decode_blocks` does, or if there is nothing to be heard in any window.
    """

    def append_and_note(waves: WaveBlocks) -> tuple[int, int, PeakMeter]:
        meter = PeakMeter(mel)
        return *append(meter.measure(waves)), meter

    decoded = decode_blocks(
        append_and_note, path, sample_rate_hz=mel.sample_rate_hz, max_duration_s=max_duration_s
    )
    start_byte, frames, meter = decoded.result
    spans = place_windows(frames, windows, mel)
    heard = [span for span in spans if meter.peak(span) >= SILENCE_PEAK]
    if not heard:
        raise BadAudio("silent", f"none of its {len(spans)} windows is ever above -80 dB")
    return [SpooledWindow(span.start, span.frames, start_byte + frame_bytes * span.start) for span in heard]
