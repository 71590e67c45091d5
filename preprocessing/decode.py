"""Audio file to mono float32 samples, whatever the format, a bad file being an answer.

Two decoders: libsndfile (fast: MP3, FLAC, Ogg, Opus, WAV, AIFF) and, for all it does not
know or breaks off early, FFmpeg's, packet by packet, which recovers most from damage.
Samples pass in blocks, so a long track costs its result and no more.

Axes: S samples, C channels.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from preprocessing.container import identify, stated_duration_s
from preprocessing.errors import BadAudio
from store.files import local_path, read_bytes

HEAD_BYTES = 1 << 18
BLOCK_SAMPLES = 1 << 17
MAX_MPEG_BITS_PER_S = 340_000  # 320 kbit/s and a little: an MP3 that "plays" faster was broken off
LOUDEST = 2.0  # damaged frames decode to peaks of 1e5; no honest overshoot reaches +6 dB
SHORT_BY_S = 0.2  # encoders pad: what lacks less than this, or 1 %, lacks nothing
RUN_UP_S = 0.25  # after a seek, transform codecs need a few packets to be exact again
STAMP_TOLERANCE_S = 0.05
SILENT_BELOW = 1e-4  # -80 dB: a track that never exceeds this says nothing of its genre

Source = Path | io.BytesIO
Block = tuple[NDArray[np.float32], int]  # mono samples and their rate in Hz


@dataclass(frozen=True)
class Decoded:
    """A waveform, and how long the file said it would be (None if it did not)."""

    wave_S: NDArray[np.float32]
    decoded_s: float
    stated_s: float | None

    @property
    def is_cut_short(self) -> bool:
        """Say whether much less came out than the file promised."""
        return self.stated_s is not None and _lacks(self.decoded_s, self.stated_s)


def decode(
    url: str, *, sample_rate_hz: int, start_s: float = 0.0, duration_s: float | None = None
) -> NDArray[np.float32]:
    """Decode an audio file, or a window of it, to mono.

    Shapes: (S,); the mean of the channels.
    Units:  samples in [-1, 1] but for the overshoot of lossy codecs.
    Raises: BadAudio with a reason code if the file cannot be used; OSError if it cannot be read now.
    """
    return decode_track(url, sample_rate_hz=sample_rate_hz, start_s=start_s, duration_s=duration_s).wave_S


def decode_track(
    url: str, *, sample_rate_hz: int, start_s: float = 0.0, duration_s: float | None = None
) -> Decoded:
    """Decode as `decode` does, and say how the length compares with what the file states."""
    source, head, size_bytes = _open(url)
    if size_bytes == 0:
        raise BadAudio("empty", "0 bytes")
    kind = identify(head)
    if kind is None:
        raise BadAudio("not-audio", f"it begins with {head[:16]!r}, like no audio format")
    stated_s = stated_duration_s(head) if kind == "mpeg" else None
    window = _Window(start_s, duration_s)
    try:
        first = _with_libsndfile(source, window, sample_rate_hz, stated_s)
    except soundfile.LibsndfileError:
        first = None
    if first is None or _is_suspect(first, kind, size_bytes, window):
        second = _with_ffmpeg(source, window, sample_rate_hz, stated_s)
        first = max(filter(None, [first, second]), key=lambda it: it.decoded_s, default=None)
    return _checked(first, kind, size_bytes, window)


@dataclass(frozen=True)
class _Window:
    start_s: float
    duration_s: float | None

    def cut(self, stated_s: float | None) -> float | None:
        """Say how long the window should be, given what the whole file states."""
        if stated_s is None:
            return None
        rest_s = max(0.0, stated_s - self.start_s)
        return rest_s if self.duration_s is None else min(rest_s, self.duration_s)


def _open(url: str) -> tuple[Source, bytes, int]:
    path = local_path(url)
    try:
        if path is None:
            data = read_bytes(url)
            return io.BytesIO(data), data[:HEAD_BYTES], len(data)
        with path.open("rb") as file:
            return path, file.read(HEAD_BYTES), path.stat().st_size
    except FileNotFoundError:
        raise BadAudio("missing", "no such file") from None
    except IsADirectoryError:
        raise BadAudio("not-audio", "it is a folder") from None
    except PermissionError:
        raise BadAudio("no-permission", "this user may not read the file") from None


def _lacks(decoded_s: float, wanted_s: float) -> bool:
    return wanted_s - decoded_s > max(SHORT_BY_S, 0.01 * wanted_s)


def _is_suspect(first: Decoded, kind: str, size_bytes: int, window: _Window) -> bool:
    """Say whether libsndfile's answer wants a second opinion: it may break off without a word."""
    if first.is_cut_short:
        return True
    whole = window.start_s == 0 and window.duration_s is None
    return kind == "mpeg" and whole and size_bytes * 8 > MAX_MPEG_BITS_PER_S * max(first.decoded_s, 1e-9)


def _checked(decoded: Decoded | None, kind: str, size_bytes: int, window: _Window) -> Decoded:
    if decoded is None or decoded.wave_S.size == 0:
        if window.start_s > 0:
            raise BadAudio("too-short", f"nothing plays from {window.start_s:g} s on")
        raise BadAudio(
            "truncated", f"{size_bytes:,} bytes of {kind}, and no decoder gets a sample out of them"
        )
    wave_S = decoded.wave_S
    if not np.isfinite(wave_S).all():
        raise BadAudio("not-audio", "the file decodes to NaN or infinite samples")
    if decoded.stated_s is not None and decoded.decoded_s < 0.5 * decoded.stated_s:
        raise BadAudio("truncated", f"{decoded.decoded_s:.1f} of {decoded.stated_s:.1f} s can be played")
    if max(wave_S.max(), -wave_S.min()) < SILENT_BELOW:
        raise BadAudio("silent", f"{decoded.decoded_s:.1f} s, never above -80 dB")
    np.clip(wave_S, -LOUDEST, LOUDEST, out=wave_S)
    return decoded


def _with_libsndfile(source: Source, window: _Window, sample_rate_hz: int, stated_s: float | None) -> Decoded:
    """Raises: LibsndfileError for a format it does not know or damage it cannot pass."""
    if isinstance(source, io.BytesIO):
        source.seek(0)
    with soundfile.SoundFile(source) as file:
        rate_hz = file.samplerate
        if stated_s is None and file.format != "MP3":  # for MP3 that is an estimate
            stated_s = file.frames / rate_hz
        file.seek(min(round(window.start_s * rate_hz), file.frames))
        left = file.frames if window.duration_s is None else round(window.duration_s * rate_hz)
        wave_S, decoded_s = _gather(_libsndfile_blocks(file, left), sample_rate_hz)
    return Decoded(wave_S, decoded_s, window.cut(stated_s))


def _libsndfile_blocks(file: soundfile.SoundFile, left: int) -> Iterator[Block]:
    stereo_SC = np.empty((BLOCK_SAMPLES, file.channels), np.float32)
    while left > 0:
        block_SC = file.read(out=stereo_SC[: min(left, BLOCK_SAMPLES)])
        if not len(block_SC):
            return
        left -= len(block_SC)
        yield _to_mono(block_SC), file.samplerate


def _with_ffmpeg(
    source: Source, window: _Window, sample_rate_hz: int, stated_s: float | None
) -> Decoded | None:
    if isinstance(source, io.BytesIO):
        source.seek(0)
    target = str(source) if isinstance(source, Path) else source
    try:
        with av.open(target, mode="r", metadata_errors="replace") as container:
            if not container.streams.audio:
                raise BadAudio("unsupported", "the file holds no audio stream")
            if stated_s is None and container.format.name != "mp3" and container.duration:
                stated_s = container.duration / av.time_base
            wave_S, decoded_s = _gather(_ffmpeg_blocks(container, window), sample_rate_hz)
    except av.error.FFmpegError as why:
        if isinstance(why, OSError) and why.errno is not None and why.errno in _DISK_ERRNOS:
            raise
        return None
    return Decoded(wave_S, decoded_s, window.cut(stated_s))


_DISK_ERRNOS = frozenset({5, 12, 24, 116})  # EIO, ENOMEM, EMFILE, ESTALE: not the file's fault


def _ffmpeg_blocks(container: "av.container.InputContainer", window: _Window) -> Iterator[Block]:
    """Decode packet by packet, passing over the broken ones, and cut to the window by time stamp."""
    stream = container.streams.audio[0]
    origin_s = float((stream.start_time or 0) * (stream.time_base or 0))
    start_s = window.start_s + origin_s
    stop_s = float("inf") if window.duration_s is None else start_s + window.duration_s
    if window.start_s > 0:
        container.seek(int((start_s - RUN_UP_S) * av.time_base), backward=True)
    at_s = None
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            continue
        for frame in frames:
            stamp_s = float(origin_s if frame.time is None else frame.time)
            if at_s is None or (frame.time is not None and abs(stamp_s - at_s) > STAMP_TOLERANCE_S):
                at_s = stamp_s  # else we count samples: stamps may be rounded to 1 ms
            mono_S = _to_mono(_as_float(frame))
            low, high = (round(min(edge_s - at_s, 1e9) * frame.rate) for edge_s in (start_s, stop_s))
            at_s += mono_S.size / frame.rate
            if high <= 0:
                return
            if max(low, 0) < mono_S.size:
                yield mono_S[max(low, 0) : high], frame.rate


def _as_float(frame: "av.AudioFrame") -> NDArray[np.float32]:
    """Shapes: (S, C); integer formats scaled to [-1, 1)."""
    samples: NDArray[Any] = frame.to_ndarray()
    samples_SC = samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)
    match samples_SC.dtype.kind:
        case "u":
            zero, full = 128, 128
        case "i":
            zero, full = 0, 1 << (8 * samples_SC.dtype.itemsize - 1)
        case _:
            zero, full = 0, 1
    return (samples_SC.astype(np.float32) - np.float32(zero)) / np.float32(full)


def _to_mono(block_SC: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of the channels; as a product, which is thirty times faster than np.mean."""
    channels = block_SC.shape[1]
    if channels == 1:
        return np.array(block_SC[:, 0])
    return block_SC @ np.full(channels, 1 / channels, np.float32)


def _gather(blocks: Iterator[Block], sample_rate_hz: int) -> tuple[NDArray[np.float32], float]:
    """Resample blocks as one stream and lay them end to end; give the seconds that came in, too.

    Source: soxr HQ, which librosa uses; coarser resamplers change the top mel bands by 3 to 40 dB.
    """
    parts: list[NDArray[np.float32]] = []
    stream: soxr.ResampleStream | None = None
    stream_rate_hz, seconds = 0, 0.0
    for mono_S, rate_hz in blocks:
        seconds += mono_S.size / rate_hz
        if rate_hz != stream_rate_hz:  # damaged and chained files change rate on the way
            parts += _flush(stream)
            same = rate_hz == sample_rate_hz
            stream = None if same else soxr.ResampleStream(rate_hz, sample_rate_hz, 1, dtype="float32")
            stream_rate_hz = rate_hz
        parts.append(mono_S if stream is None else stream.resample_chunk(mono_S))
    parts += _flush(stream)
    return np.concatenate(parts) if parts else np.empty(0, np.float32), seconds


def _flush(stream: soxr.ResampleStream | None) -> list[NDArray[np.float32]]:
    return [] if stream is None else [stream.resample_chunk(np.empty(0, np.float32), last=True)]
