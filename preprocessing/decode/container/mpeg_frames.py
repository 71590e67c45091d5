"""MPEG audio frames, found and read by their headers. Source: ISO 11172-3, 13818-3."""

from dataclasses import dataclass

MPEG_BITRATES_KBPS = {  # by (is version 1, layer): the 14 rates that header bits select
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MPEG_RATES_HZ = (44_100, 48_000, 32_000)
MAX_FREE_FORMAT_FRAME_BYTES = 6_000  # above that of 640 kbit/s
MAX_MPEG_FRAME_BYTES = 2_881  # layer 2 at 160 kbit/s and 8 kHz, with padding


@dataclass(frozen=True)
class MpegHeader:
    """One MPEG audio frame header (ISO 11172-3, 13818-3)."""

    size_bytes: int
    rate_hz: int
    samples: int
    side_info_bytes: int


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


def is_free_format(body: bytes) -> bool:
    """Return whether MPEG frames of a bit rate that is in no table start here: the same header follows soon."""
    header = body[:2] + bytes([body[2] & 0xFC]) if len(body) > 4 else b""
    listed = header and parse_mpeg_header(header[:2] + bytes([header[2] | 0x10]) + body[3:4])
    return bool(listed) and header[2] >> 4 == 0 and header[:2] in body[4:MAX_FREE_FORMAT_FRAME_BYTES]
