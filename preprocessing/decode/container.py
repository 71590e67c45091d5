"""The container format and the stated duration of an audio file, read from its headers.

A decoder turns some files that are no audio, such as web pages, into noise: so the format is checked first.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MPEG_BITRATES_KBPS = {  # by (is version 1, layer): the 14 rates that header bits select
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
SCAN_BLOCK_BYTES = 1 << 22
MAX_FREE_FORMAT_FRAME_BYTES = 6_000  # above that of 640 kbit/s
RESYNC_BYTES = 1 << 16
MAX_MPEG_FRAME_BYTES = 2_881  # layer 2 at 160 kbit/s and 8 kHz, with padding
MIN_SAMPLED_BYTES = 1 << 20  # the frames of a smaller file are counted within 5 ms
SAMPLED_POSITIONS, SAMPLED_BYTES = 8, 1 << 14
MAX_TAIL_BYTES = 1 << 12  # tags after the audio
CUT_RATE_TOLERANCE = 0.3  # the rest of a track of varying bit rate may be louder
MPEG_RATES_HZ = (44_100, 48_000, 32_000)
MAGIC_NUMBERS = (  # offset, bytes, name
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (8, b"WAVE", "wav"),
    (8, b"AIFF", "aiff"),
    (8, b"AIFC", "aiff"),
    (4, b"ftyp", "mp4"),
    (0, bytes.fromhex("3026b2758e66cf11"), "asf"),
    (0, b"wvpk", "wavpack"),
    (0, b"MAC ", "monkeys-audio"),
    (0, b"TTA1", "true-audio"),
    (0, b"caff", "caf"),
    (0, b"\x1a\x45\xdf\xa3", "matroska"),
    (0, b"#!AMR", "amr"),
    (0, b"riff\x2e\x91\xcf\x11", "wave64"),
    (0, b"tBaK", "tak"),
    (0, b"MPCK", "musepack"),
    (0, b"MP+", "musepack"),
    (0, b"DSD ", "dsf"),
    (0, b"FRM8", "dsdiff"),
    (0, b".snd", "au"),
    (0, b"\x7f\xfe\x80\x01", "dts"),
    (0, b"\xfe\x7f\x01\x80", "dts"),
)
MP4_FIRST_BOXES = (b"moov", b"mdat", b"wide", b"free", b"skip")  # of files without ftyp, from old QuickTime
AC3_SYNC, MAX_AC3_FRAME_BYTES = b"\x0b\x77", 3_840


@dataclass(frozen=True)
class MpegHeader:
    """One MPEG audio frame header (ISO 11172-3, 13818-3)."""

    size_bytes: int
    rate_hz: int
    samples: int
    side_info_bytes: int


def sniff_format(head: bytes) -> str | None:
    """Return the audio format that a file's first bytes are of, or None.

    ID3v2 tags before the audio are skipped if they end within `head`.
    """
    body = head[id3_end(head) :]
    if not body and head:
        return "mpeg"  # a tag with a cover picture can be longer than the head
    for offset, magic, kind in MAGIC_NUMBERS:
        if body[offset : offset + len(magic)] == magic:
            return kind
    if body[4:8] in MP4_FIRST_BOXES and body[0] < 0x20:  # no letter
        return "mp4"
    if _find_adts(body):
        return "aac"
    if body[:2] == AC3_SYNC and body.find(AC3_SYNC, 2, MAX_AC3_FRAME_BYTES + 2) > 0:
        return "ac3"
    return "mpeg" if find_mpeg_frame(body) is not None or _is_free_format(body) else None


@dataclass(frozen=True)
class MpegStatement:
    """What the Xing, Info or VBRI frame of an MP3 states about it."""

    frames: int
    size_bytes: int | None  # from that frame on
    header: MpegHeader

    @property
    def duration_s(self) -> float:
        return self.frames * self.header.samples / self.header.rate_hz


def read_mpeg_statement(head: bytes) -> MpegStatement | None:
    """Read the Xing, Info or VBRI frame of an MP3; None if it has none, or that states no number of frames.

    Source: the layout of the Xing header as LAME writes it; Fraunhofer's VBRI is 36 bytes into the frame.
    """
    body = head[id3_end(head) :]
    start = find_mpeg_frame(body)
    header = parse_mpeg_header(body[start : start + 4]) if start is not None else None
    if start is None or header is None:
        return None
    xing = start + 4 + header.side_info_bytes
    if body[xing : xing + 4] in (b"Xing", b"Info") and len(body) >= xing + 16:
        flags, frames, size_bytes = struct.unpack(">III", body[xing + 4 : xing + 16])
        return (
            MpegStatement(frames, size_bytes if flags & 2 else None, header) if flags & 1 and frames else None
        )
    if body[start + 36 : start + 40] == b"VBRI" and len(body) >= start + 54:
        size_bytes, frames = struct.unpack(">II", body[start + 46 : start + 54])
        return MpegStatement(frames, size_bytes or None, header) if frames else None
    return None


def mpeg_duration_s(path: Path, head: bytes) -> float | None:
    """Return the duration of an MP3 as its first frame states it, if the bytes agree, else as its frames add up to.

    Files that were joined, edited or cut keep the first frame of their first part. One that was cut off is as long
    as stated: then number and size, which are both too large, agree with each other.
    """
    statement = read_mpeg_statement(head)
    if statement is not None and _agrees_with_bytes(path, head, statement):
        return statement.duration_s
    counted_s = scan_mpeg_duration_s(path)
    if statement is None or counted_s is None or statement.size_bytes is None:
        return counted_s
    stated_rate = statement.size_bytes / statement.duration_s
    counted_rate = (path.stat().st_size - id3_end(head)) / counted_s
    was_cut = statement.duration_s > counted_s and abs(stated_rate / counted_rate - 1) < CUT_RATE_TOLERANCE
    return statement.duration_s if was_cut else counted_s


def _agrees_with_bytes(path: Path, head: bytes, statement: MpegStatement) -> bool:
    """Return whether a statement fits the size of the file and the sizes of frames from all over it.

    A few frames of varying bit rate are a sample, so the tolerance is that of their mean.
    """
    size_bytes = path.stat().st_size - id3_end(head)
    if statement.size_bytes is None or size_bytes < MIN_SAMPLED_BYTES:
        return False
    if abs(statement.size_bytes - size_bytes) > max(0.01 * size_bytes, MAX_TAIL_BYTES):
        return False
    means = list(_sample_frame_bytes(path, id3_end(head), size_bytes, statement.header))
    if len(means) < 3:
        return False
    mean = sum(means) / len(means)
    error = math.sqrt(sum((it - mean) ** 2 for it in means) / (len(means) - 1) / len(means))
    return abs(statement.size_bytes / statement.frames - mean) <= max(0.02 * mean, 4 * error)


def _sample_frame_bytes(path: Path, start: int, size_bytes: int, header: MpegHeader) -> Iterator[float]:
    """Yield the mean size of a few successive frames at each of some positions of a file."""
    with path.open("rb") as file:
        for number in range(SAMPLED_POSITIONS):
            file.seek(start + size_bytes * (2 * number + 1) // (2 * SAMPLED_POSITIONS))
            body = file.read(SAMPLED_BYTES)
            at = first = find_mpeg_frame(body)
            count = 0
            while at is not None and (found := parse_mpeg_header(body[at : at + 4])) is not None:
                if found.rate_hz != header.rate_hz:
                    break
                count, at = count + 1, at + found.size_bytes
            if first is not None and at is not None and count >= 3:
                yield (at - first) / count


def scan_mpeg_duration_s(path: Path) -> float | None:
    """Add up the durations of a file's MPEG frames, by their headers alone; None if there are none.

    For MP3s without a true Xing, Info or VBRI frame: decoders estimate their duration from the first
    frames, and stop decoding there. It takes 4 % of the time of decoding.
    """
    seconds, rest = 0.0, b""
    headers: dict[bytes, MpegHeader | None] = {}
    with path.open("rb") as file:
        skip = id3_end(file.read(SCAN_BLOCK_BYTES))
        file.seek(skip)
        ends = False
        while not ends:
            block = file.read(SCAN_BLOCK_BYTES)
            ends = len(block) < SCAN_BLOCK_BYTES
            rest, counted_s = _add_frames(rest + block, headers, ends=ends)
            seconds += counted_s
    return seconds or None


def _add_frames(data: bytes, headers: dict[bytes, MpegHeader | None], *, ends: bool) -> tuple[bytes, float]:
    """Return the bytes after the last whole frame in `data`, and the duration of the frames before."""
    at, seconds = 0, 0.0
    while at + MAX_MPEG_FRAME_BYTES < len(data) or (ends and at + 4 <= len(data)):
        four = data[at : at + 4]
        if four not in headers:
            headers[four] = parse_mpeg_header(four)
        header = headers[four]
        if header is None:
            window = data[at + 1 : at + 1 + RESYNC_BYTES]
            found = find_mpeg_frame(window)
            at += 1 + (max(len(window) - MAX_MPEG_FRAME_BYTES, 1) if found is None else found)
        else:
            at += header.size_bytes
            seconds += header.samples / header.rate_hz if at <= len(data) else 0.0
    return data[at:], seconds


def id3_end(head: bytes) -> int:
    """Return the position after the ID3v2 tags at the start; 0 if there are none."""
    end = 0
    while head[end : end + 3] == b"ID3" and len(head) >= end + 10:
        flags, *size = head[end + 5 : end + 10]
        footer = 10 if flags & 0x10 else 0
        end += 10 + footer + sum(part << shift for part, shift in zip(size, (21, 14, 7, 0), strict=True))
    return end


def find_mpeg_frame(body: bytes) -> int | None:
    """Return the position of the first MPEG frame that is followed by another of the same sample rate.

    A frame that the file ends within counts too, if it is at the very start.
    """
    start = body.find(b"\xff")
    while 0 <= start < len(body) - 4:
        header = parse_mpeg_header(body[start : start + 4])
        if header is not None:
            following = parse_mpeg_header(body[start + header.size_bytes : start + header.size_bytes + 4])
            is_truncated = start == 0 and header.size_bytes + 4 > len(body)
            if is_truncated or (following is not None and following.rate_hz == header.rate_hz):
                return start
        start = body.find(b"\xff", start + 1)
    return None


def parse_mpeg_header(four: bytes) -> MpegHeader | None:
    """Parse one MPEG audio frame header; None if these four bytes are none."""
    if len(four) < 4 or four[0] != 0xFF or four[1] & 0xE0 != 0xE0:
        return None
    version_bits, layer_bits = four[1] >> 3 & 3, four[1] >> 1 & 3
    bitrate_index, rate_index, padding = four[2] >> 4, four[2] >> 2 & 3, four[2] >> 1 & 1
    if version_bits == 1 or layer_bits == 0 or bitrate_index in (0, 15) or rate_index == 3:
        return None
    is_v1, layer = version_bits == 3, 4 - layer_bits
    rate_hz = MPEG_RATES_HZ[rate_index] // {3: 1, 2: 2, 0: 4}[version_bits]
    bitrate = MPEG_BITRATES_KBPS[is_v1, layer][bitrate_index - 1] * 1000
    samples = 384 if layer == 1 else 576 if layer == 3 and not is_v1 else 1152
    slot = 4 if layer == 1 else 1
    size = (samples // 8 * bitrate // rate_hz // slot + padding) * slot
    mono = four[3] >> 6 == 3
    side_info = {(True, True): 17, (True, False): 32, (False, True): 9, (False, False): 17}[is_v1, mono]
    return MpegHeader(size, rate_hz, samples, side_info)


def _is_free_format(body: bytes) -> bool:
    """Return whether MPEG frames of a bit rate that is in no table start here: the same header follows soon."""
    header = body[:2] + bytes([body[2] & 0xFC]) if len(body) > 4 else b""
    listed = header and parse_mpeg_header(header[:2] + bytes([header[2] | 0x10]) + body[3:4])
    return bool(listed) and header[2] >> 4 == 0 and header[:2] in body[4:MAX_FREE_FORMAT_FRAME_BYTES]


def _find_adts(body: bytes) -> bool:
    """Return whether raw AAC starts here: two ADTS headers, one frame apart."""
    if len(body) < 7 or body[0] != 0xFF or body[1] & 0xF6 != 0xF0:
        return False
    size = (body[3] & 3) << 11 | body[4] << 3 | body[5] >> 5
    return size > 7 and body[size : size + 1] == b"\xff" and body[size + 1 : size + 2] == body[1:2]
