"""The windows of a track, decoded onto a spool by seeking; the whole track is decoded only if that fails.

If a window is shorter than it should be, or damaged, the whole track is decoded, by both decoders if
needed, and the windows are slices of it.

Axes: S samples, F frames, M mel bands.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import soundfile

from preprocessing.decode.decoders import (
    SILENCE_PEAK,
    RatedBlock,
    TimeRange,
    WaveBlocks,
    attempt_decode,
    decode_blocks,
    ffmpeg_blocks,
    ffmpeg_duration_s,
    libsndfile_blocks,
    libsndfile_duration_s,
)
from preprocessing.decode.mixing import Mixer, full_scale
from preprocessing.decode.settings import WindowSettings
from preprocessing.decode.source import AudioSource, read_source
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

Append = Callable[
    [WaveBlocks], tuple[int, int]
]  # to the spool; returns the first byte and the number of frames
PlaceWindows = Callable[[float], list[FrameRange]]  # in a track of that many seconds; [] to decode the whole
DecodeBlocks = Callable[[DecodeRange], Iterator[RatedBlock]]


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

    Raises: BadAudio if the file cannot be used, or all windows are silent; OSError if it cannot be
        read now, or the spool cannot be written.

    Silent windows are left out.
    """
    append = partial(_append_wave if as_waves else _append_mel, spool=spool, mel=mel)
    spooled = _seek(append, path, mel, windows, max_duration_s)
    if spooled is None:
        frame_bytes = 4 * (mel.hop if as_waves else mel.bands)
        spooled = _slice_whole(append, path, mel, windows, max_duration_s, frame_bytes=frame_bytes)
    spool.flush()
    return spooled


def _append_mel(waves: WaveBlocks, *, spool: BinaryIO, mel: MelSettings) -> tuple[int, int]:
    start_byte, frames = spool.tell(), 0
    for mel_FM in log_mel_blocks(waves, mel):
        spool.write(mel_FM.data)
        frames += len(mel_FM)
    return start_byte, frames


def _append_wave(waves: WaveBlocks, *, spool: BinaryIO, mel: MelSettings) -> tuple[int, int]:
    """Raise BadAudio if there are too few samples for one frame."""
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
    """Spool the windows of a track by seeking; None if the whole track must be decoded."""
    if windows.whole_track:
        return None
    source = read_source(path)
    if source.is_cut or len(source.links) > 1:
        return None
    place = partial(_place, mel=mel, windows=windows, max_duration_s=max_duration_s)
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError:
        return None if source.kind == "mpeg" else _seek_with_ffmpeg(append, source, place, mel)
    with file:
        try:
            return _seek_with_libsndfile(append, file, source, place, mel)
        except soundfile.LibsndfileError:
            return None


def _place(
    duration_s: float, *, mel: MelSettings, windows: WindowSettings, max_duration_s: float
) -> list[FrameRange]:
    """Place windows in a track of a stated duration; return none if the whole track is to be decoded."""
    frames = mel.count_frames(duration_s)
    if duration_s > max_duration_s or windows.covers_track(frames, mel):
        return []
    return place_windows(frames, windows, mel)


def _seek_with_libsndfile(
    append: Append, file: soundfile.SoundFile, source: AudioSource, place: PlaceWindows, mel: MelSettings
) -> list[SpooledWindow] | None:
    rate_hz = file.samplerate
    stated_s = source.counted_s or source.plausible(libsndfile_duration_s(file))
    if stated_s is None:
        return None
    mixer = Mixer(scale=1 / full_scale(file))

    def decode(part: DecodeRange) -> Iterator[RatedBlock]:
        file.seek(round(part.start_s * rate_hz))  # raises beyond what libsndfile takes for the end
        return libsndfile_blocks(file, round(part.duration_s * rate_hz), mixer)

    spooled = _spool_each(append, decode, place(stated_s), stated_s, rate_hz, mel)
    return None if mixer.cancels else spooled


def _seek_with_ffmpeg(
    append: Append, source: AudioSource, place: PlaceWindows, mel: MelSettings
) -> list[SpooledWindow] | None:
    try:
        with av.open(str(source.path), mode="r", metadata_errors="replace") as container:
            stated_s = source.plausible(ffmpeg_duration_s(container))
            rate_hz = container.streams.audio[0].rate if container.streams.audio else None
            if stated_s is None or not rate_hz:
                return None
            mixer = Mixer()

            def decode(part: DecodeRange) -> Iterator[RatedBlock]:
                return ffmpeg_blocks(container, TimeRange(part.start_s, part.duration_s), mixer)

            spooled = _spool_each(append, decode, place(stated_s), stated_s, rate_hz, mel)
            return None if mixer.cancels else spooled
    except av.error.FFmpegError:
        return None  # decoding the whole track reports what is wrong


def _spool_each(
    append: Append,
    decode: DecodeBlocks,
    windows: list[FrameRange],
    stated_s: float,
    rate_hz: int,
    mel: MelSettings,
) -> list[SpooledWindow] | None:
    """Spool each window that is not silent; None if there is none, or one is shorter than stated."""
    spooled = []
    for window in windows:
        part = decode_range_for(window, rate_hz, mel)
        expected_s = TimeRange(part.start_s, part.duration_s).expected_duration_s(stated_s)
        consume = partial(_append_part, append, part)
        attempt = attempt_decode(consume, mel.sample_rate_hz, float("inf"), decode(part), expected_s)
        if attempt.needs_fallback:
            return None
        if attempt.peak >= SILENCE_PEAK:
            start_byte, frames = attempt.results[0]
            spooled.append(SpooledWindow(window.start, frames, start_byte))
    return spooled or None


def _append_part(append: Append, part: DecodeRange, waves: WaveBlocks) -> tuple[int, int]:
    return append(slice_wave(waves, part.skip_samples, part.keep_samples))


def _slice_whole(
    append: Append,
    path: Path,
    mel: MelSettings,
    windows: WindowSettings,
    max_duration_s: float,
    *,
    frame_bytes: int,
) -> list[SpooledWindow]:
    """Spool a whole track, and return its windows as slices of that.

    Raises: BadAudio as `decode_blocks` does, or if all windows are silent.
    """

    def append_and_measure(waves: WaveBlocks) -> tuple[int, int, PeakMeter]:
        meter = PeakMeter(mel)
        return *append(meter.measure(waves)), meter

    decoded = decode_blocks(
        append_and_measure, path, sample_rate_hz=mel.sample_rate_hz, max_duration_s=max_duration_s
    )
    start_byte, frames, meter = decoded.result
    placed = place_windows(frames, windows, mel)
    audible = [window for window in placed if meter.peak(window) >= SILENCE_PEAK]
    if not audible:
        raise BadAudio("silent", f"none of its {len(placed)} windows is ever above -80 dB")
    return [SpooledWindow(it.start, it.frames, start_byte + frame_bytes * it.start) for it in audible]
