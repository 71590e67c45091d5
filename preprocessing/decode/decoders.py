"""Audio file to mono float32 samples, whatever its format.

There are two decoders: libsndfile (fast: MP3, FLAC, Ogg, Opus, WAV, AIFF) and FFmpeg, packet
by packet, which recovers most from damage, for the formats that libsndfile does not know and the files
that it stops decoding early. Samples are passed to a consumer in blocks, so a five-hour track needs no
more memory than a five-minute one. Another decoder would be a third function like `libsndfile_blocks`.

Axes: S samples, C channels.
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from preprocessing.decode.container.flac_end import flac_duration_s
from preprocessing.decode.container.ogg_links import LinkFile, OggLink
from preprocessing.decode.mixing import Mixer, frame_samples, full_scale
from preprocessing.decode.source import AudioSource, read_source
from preprocessing.errors import BadAudio

BLOCK_VALUES = 1 << 18  # of all channels: 1 MiB, which fits into the L2 cache
CLIP_LEVEL = 2.0  # damaged frames decode to peaks of 1e5; the overshoot of lossy codecs stays below +6 dB
PADDING_TOLERANCE_S = 0.2  # encoders pad: a track that lacks less than this, or 1 %, is complete
SEEK_PREROLL_S = 0.25  # after a seek, transform codecs need a few packets until their output is exact
STAMP_TOLERANCE_S = 0.05  # containers round time stamps, some to 1 ms; a larger difference is a gap
SILENCE_PEAK = 1e-4  # -80 dB: a track that never exceeds this is silent
MAX_DURATION_S = 12 * 3600.0
MAX_SAMPLES = 1 << 62
# Bare frames: FFmpeg estimates their duration.
FORMATS_WITHOUT_DURATION = frozenset({"mp3", "aac", "ac3", "eac3", "amr", "dts"})

T = TypeVar("T")
WaveBlocks = Iterator[NDArray[np.float32]]  # mono, at the requested rate; concatenated they are the track
RatedBlock = tuple[NDArray[np.float32], int]  # mono samples and their rate in Hz


@dataclass(frozen=True)
class DecodeResult(Generic[T]):
    """What the consumer made of a waveform, its duration, and the duration that the file states."""

    result: T
    decoded_s: float
    stated_s: float | None  # None if the file states none
    is_cut: bool = False  # the mark of its end is missing

    @property
    def is_truncated(self) -> bool:
        """Return whether the end of the track is missing."""
        return self.is_cut or (self.stated_s is not None and is_much_shorter(self.decoded_s, self.stated_s))


def decode_blocks(
    consume: Callable[[WaveBlocks], T],
    path: Path,
    *,
    sample_rate_hz: int,
    start_s: float = 0.0,
    duration_s: float | None = None,
    max_duration_s: float = MAX_DURATION_S,
) -> DecodeResult[T]:
    """Decode an audio file, or a window of it, to mono blocks; return what `consume` makes of them.

    Raises: BadAudio with a reason code if the file cannot be used; OSError if it cannot be read now.

    If the first decoder fails or stops early, `consume` is called again with the blocks of the other
    decoder, from the start, and the longer result is returned.
    """
    source = read_source(path)
    window = TimeRange(start_s, duration_s)
    attempt = partial(attempt_decode, consume, sample_rate_hz, max_duration_s)
    mixer = Mixer()
    decoded = _decode(attempt, source, window, mixer)
    if mixer.cancels:
        decoded = _decode(attempt, source, window, mixer.inverted())
    return _check(decoded, source, window)


def _decode(
    attempt: "Attempt[T]", source: AudioSource, window: "TimeRange", mixer: Mixer
) -> "DecodeAttempt[T] | None":
    """Decode with one decoder, and with the other if that fails or stops early; return the longer result."""
    if len(source.links) > 1:
        return attempt(_chained_blocks(source, window, mixer), None)
    try:
        first = _with_libsndfile(attempt, source, window, mixer)
    except soundfile.LibsndfileError:
        first = None
    if first is not None and not first.needs_fallback:
        return first
    second = _with_ffmpeg(attempt, source, window, mixer)
    best = max(filter(None, [first, second]), key=lambda it: (it.error is None, it.decoded_s), default=None)
    if best is not None and best.is_short and window == TimeRange(0.0, None) and source.kind == "flac":
        best.stated_s = flac_duration_s(source.path) or best.stated_s
    return best


@dataclass(frozen=True)
class TimeRange:
    """Seconds of a track; without a duration, up to its end."""

    start_s: float
    duration_s: float | None

    def is_covered_by(self, decoded_s: float) -> bool:
        return self.duration_s is not None and not is_much_shorter(decoded_s, self.duration_s)

    def expected_duration_s(self, stated_s: float | None) -> float | None:
        """Return the duration of the part of the range that is within a track of a stated duration."""
        if stated_s is None:
            return None
        rest_s = max(0.0, stated_s - self.start_s)
        return rest_s if self.duration_s is None else min(rest_s, self.duration_s)


@dataclass
class DecodeAttempt(Generic[T]):
    """The result of one decoder for one file."""

    stated_s: float | None
    decoded_s: float = 0.0
    peak: float = 0.0
    error: BadAudio | None = None
    results: list[T] = field(default_factory=list)  # one, or none if there is an error

    @property
    def needs_fallback(self) -> bool:
        """Return whether the other decoder should try: libsndfile may stop early without an error."""
        if self.error is not None:
            return self.error.reason != "too-long"
        return self.decoded_s == 0 or self.is_short

    @property
    def is_short(self) -> bool:
        return self.stated_s is not None and is_much_shorter(self.decoded_s, self.stated_s)


Attempt = Callable[[Iterator[RatedBlock], float | None], DecodeAttempt[T]]


def is_much_shorter(decoded_s: float, wanted_s: float) -> bool:
    return wanted_s - decoded_s > max(PADDING_TOLERANCE_S, 0.01 * wanted_s)


def _check(attempt: DecodeAttempt[T] | None, source: AudioSource, window: TimeRange) -> DecodeResult[T]:
    """Raise BadAudio if nothing could be decoded, much less than the file states, or only silence."""
    error = attempt.error if attempt is not None else None
    if error is not None and error.reason != "too-short":
        raise error
    if attempt is None or attempt.decoded_s == 0:
        if window.start_s > 0:
            raise BadAudio("too-short", f"there is no audio from {window.start_s:g} s on")
        what = f"{source.size_bytes:,} bytes of {source.kind}"
        raise BadAudio("truncated", f"{what}, of which no decoder can decode a sample")
    if attempt.stated_s is not None and attempt.decoded_s < 0.5 * attempt.stated_s:
        raise BadAudio("truncated", f"{attempt.decoded_s:.1f} of {attempt.stated_s:.1f} s can be decoded")
    if error is not None:
        raise error
    if attempt.peak < SILENCE_PEAK:
        raise BadAudio("silent", f"{attempt.decoded_s:.1f} s, never above -80 dB")
    is_cut = source.is_cut and not window.is_covered_by(attempt.decoded_s)
    return DecodeResult(attempt.results[0], attempt.decoded_s, attempt.stated_s, is_cut)


def attempt_decode(
    consume: Callable[[WaveBlocks], T],
    sample_rate_hz: int,
    max_duration_s: float,
    blocks: Iterator[RatedBlock],
    stated_s: float | None,
) -> DecodeAttempt[T]:
    """Pass the blocks of one decoder to `consume`. BadAudio is recorded: another decoder may do better."""
    attempt = DecodeAttempt[T](stated_s)
    try:
        attempt.results.append(consume(_measure(blocks, attempt, sample_rate_hz, max_duration_s)))
    except BadAudio as error:
        attempt.error = error
    return attempt


def _measure(
    blocks: Iterator[RatedBlock], attempt: DecodeAttempt[T], sample_rate_hz: int, max_duration_s: float
) -> WaveBlocks:
    """Resample blocks and clip them; record their duration and peak in `attempt`."""
    for wave_S in _resample(_limit_duration(blocks, attempt, max_duration_s), sample_rate_hz):
        peak = float(max(wave_S.max(), -wave_S.min()))  # NaN if any sample is
        if not np.isfinite(peak):
            raise BadAudio("not-audio", "the file decodes to NaN or infinite samples")
        if peak > CLIP_LEVEL:
            np.clip(wave_S, -CLIP_LEVEL, CLIP_LEVEL, out=wave_S)
        attempt.peak = max(attempt.peak, peak)
        yield wave_S


def _limit_duration(
    blocks: Iterator[RatedBlock], attempt: DecodeAttempt[T], max_duration_s: float
) -> Iterator[RatedBlock]:
    for mono_S, rate_hz in blocks:
        attempt.decoded_s += mono_S.size / rate_hz
        if attempt.decoded_s > max_duration_s:
            raise BadAudio("too-long", f"it is longer than {max_duration_s / 3600:g} h")
        yield mono_S, rate_hz


def _with_libsndfile(
    attempt: Attempt[T], source: AudioSource, window: TimeRange, mixer: Mixer
) -> DecodeAttempt[T]:
    """Raise LibsndfileError for a format it does not know or damage it cannot skip."""
    with soundfile.SoundFile(source.path) as file:
        rate_hz = file.samplerate
        stated_s = source.counted_s or source.plausible(libsndfile_duration_s(file))
        mixer.scale = 1 / full_scale(file)
        file.seek(min(round(window.start_s * rate_hz), file.frames))
        left = MAX_SAMPLES if window.duration_s is None else round(window.duration_s * rate_hz)
        return attempt(libsndfile_blocks(file, left, mixer), window.expected_duration_s(stated_s))


def libsndfile_duration_s(file: soundfile.SoundFile) -> float | None:
    """Return the duration of an open file; None for MP3, where it is an estimate."""
    return None if file.format == "MP3" else file.frames / file.samplerate


def libsndfile_blocks(file: soundfile.SoundFile, left: int, mixer: Mixer) -> Iterator[RatedBlock]:
    """Decode up to `left` samples from where the file is."""
    block_SC = np.empty((max(1, BLOCK_VALUES // file.channels), file.channels), np.float32)
    while left > 0:
        read_SC = file.read(out=block_SC[:left])
        if not len(read_SC):
            return
        left -= len(read_SC)
        yield mixer.mix(read_SC), file.samplerate


def _with_ffmpeg(
    attempt: Attempt[T], source: AudioSource, window: TimeRange, mixer: Mixer
) -> DecodeAttempt[T] | None:
    mixer.scale = 1.0
    try:
        with av.open(str(source.path), mode="r", metadata_errors="replace") as container:
            if not container.streams.audio:
                return DecodeAttempt(None, error=BadAudio("unsupported", "the file has no audio stream"))
            stated_s = source.counted_s or source.plausible(ffmpeg_duration_s(container))
            return attempt(ffmpeg_blocks(container, window, mixer), window.expected_duration_s(stated_s))
    except av.error.FFmpegError as error:
        if error.errno in _MACHINE_ERRNOS:
            raise
        return None


def _chained_blocks(source: AudioSource, window: TimeRange, mixer: Mixer) -> Iterator[RatedBlock]:
    """Decode the links of an Ogg file one after another, each as a file of its own."""
    at_s, stop_s = 0.0, float("inf") if window.duration_s is None else window.start_s + window.duration_s
    for link in source.links:
        for mono_S, rate_hz in _link_blocks(source.path, link, mixer):
            low, high = (round(min(edge_s - at_s, 1e9) * rate_hz) for edge_s in (window.start_s, stop_s))
            at_s += mono_S.size / rate_hz
            if high <= 0:
                return
            if max(low, 0) < mono_S.size:
                yield mono_S[max(low, 0) : high], rate_hz


def _link_blocks(path: Path, link: OggLink, mixer: Mixer) -> Iterator[RatedBlock]:
    try:
        with LinkFile(path, link) as raw, soundfile.SoundFile(raw) as file:
            file.seek(0)  # libsndfile 1.2 decodes the start of Opus wrongly without it
            yield from libsndfile_blocks(file, MAX_SAMPLES, mixer)
    except soundfile.LibsndfileError:
        with (
            suppress(av.error.FFmpegError),  # the other links are decoded
            LinkFile(path, link) as raw,
            av.open(raw, mode="r", metadata_errors="replace") as container,
        ):
            if container.streams.audio:
                yield from ffmpeg_blocks(container, TimeRange(0.0, None), mixer)


_MACHINE_ERRNOS = frozenset({errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ESTALE})  # not due to the file


def ffmpeg_duration_s(container: "av.container.InputContainer") -> float | None:
    """Return the duration of an open file; None if FFmpeg does not know or only estimates it."""
    if container.format.name in FORMATS_WITHOUT_DURATION or not container.duration:
        return None
    return float(container.duration / av.time_base)


def ffmpeg_blocks(
    container: "av.container.InputContainer", window: TimeRange, mixer: Mixer
) -> Iterator[RatedBlock]:
    """Decode packet by packet, skipping the damaged ones, and slice the window by time stamps."""
    stream = container.streams.audio[0]
    origin_s = float((stream.start_time or 0) * (stream.time_base or 0))
    start_s = window.start_s + origin_s
    stop_s = float("inf") if window.duration_s is None else start_s + window.duration_s
    if window.start_s > 0:
        container.seek(int((start_s - SEEK_PREROLL_S) * av.time_base), backward=True)
    at_s = None
    for packet in _packets(container, stream):
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            continue
        for frame in frames:
            stamp_s = float(origin_s if frame.time is None else frame.time)
            if at_s is None or (frame.time is not None and abs(stamp_s - at_s) > STAMP_TOLERANCE_S):
                at_s = stamp_s  # else samples are counted, which is exact
            mono_S = mixer.mix(frame_samples(frame))
            low, high = (round(min(edge_s - at_s, 1e9) * frame.rate) for edge_s in (start_s, stop_s))
            at_s += mono_S.size / frame.rate
            if high <= 0:
                return
            if max(low, 0) < mono_S.size:
                yield mono_S[max(low, 0) : high], frame.rate


def _packets(
    container: "av.container.InputContainer", stream: "av.AudioStream"
) -> Iterator["av.Packet[av.AudioStream]"]:
    """Read packets up to an error in the container: those before it can be decoded."""
    try:
        yield from container.demux(stream)
    except av.error.FFmpegError as error:
        if error.errno in _MACHINE_ERRNOS:
            raise


def _resample(blocks: Iterator[RatedBlock], sample_rate_hz: int) -> WaveBlocks:
    """Resample blocks as one stream.

    Source: soxr HQ, which librosa uses; coarser resamplers change the top mel bands by 3 to 40 dB.
    """
    stream: soxr.ResampleStream | None = None
    stream_rate_hz = 0
    for mono_S, rate_hz in blocks:
        if rate_hz != stream_rate_hz:  # damaged and chained files change their rate
            yield from _flush(stream)
            same = rate_hz == sample_rate_hz
            stream = None if same else soxr.ResampleStream(rate_hz, sample_rate_hz, 1, dtype="float32")
            stream_rate_hz = rate_hz
        wave_S = mono_S if stream is None else stream.resample_chunk(mono_S)
        if wave_S.size:
            yield wave_S
    yield from _flush(stream)


def _flush(stream: soxr.ResampleStream | None) -> WaveBlocks:
    wave_S = np.empty(0, np.float32)
    if stream is not None:
        wave_S = stream.resample_chunk(wave_S, last=True)
    if wave_S.size:
        yield wave_S
