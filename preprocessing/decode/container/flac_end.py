"""The last frame of a FLAC file: where it is whole, the file ends there, whatever length it states.

Source: RFC 9639, sections 9.1 (frame header), 9.3 (frame footer).
"""

from pathlib import Path

TAIL_BYTES = 1 << 17
SYNCS = (
    b"\xff\xf8",
    b"\xff\xf9",
)  # blocks of a fixed size, counted; and of varying sizes, at counted samples
BLOCK_SAMPLES = {
    1: 192,
    **{code: 144 << code for code in range(2, 6)},
    **{code: 1 << code for code in range(8, 16)},
}
RATES_HZ = dict(
    enumerate((88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000), 1)
)


def flac_duration_s(path: Path) -> float | None:
    """Return the duration of a FLAC file up to the end of its last frame; None if that is not the end of the file."""
    with path.open("rb") as file:
        head = file.read(42)
        start = max(0, file.seek(0, 2) - TAIL_BYTES)
        file.seek(start)
        tail = file.read()
    if head[:4] != b"fLaC" or len(head) < 42:
        return None
    at = max(tail.rfind(sync) for sync in SYNCS)
    while at >= 0:
        end_sample = _end_sample(tail[at:], int.from_bytes(head[10:12], "big"))
        if end_sample is not None and _checksum(tail[at:]) == 0:
            return end_sample / (int.from_bytes(head[18:21], "big") >> 4)
        at = max(tail.rfind(sync, 0, at + 1) for sync in SYNCS)
    return None


def _end_sample(frame: bytes, block_samples: int) -> int | None:
    """Return the number of samples up to the end of a frame, from its header; None if that is none."""
    if len(frame) < 16:
        return None
    ones = 8 - (frame[4] ^ 0xFF).bit_length()  # of a number in the way of UTF-8
    if ones in (1, 8):
        return None
    number = frame[4] & (0x7F >> ones)
    for byte in frame[5 : 4 + max(ones, 1)]:
        number = number << 6 | byte & 0x3F
    at, code = 4 + max(ones, 1), frame[2] >> 4
    match code:
        case 6:
            samples = frame[at] + 1
        case 7:
            samples = int.from_bytes(frame[at : at + 2], "big") + 1
        case 0:
            return None
        case _:
            samples = BLOCK_SAMPLES[code]
    return (number if frame[1] & 1 else number * block_samples) + samples


def _checksum(data: bytes) -> int:
    """Return the CRC-16 of a frame, 0 if it includes its own."""
    value = 0
    for byte in data:
        value = value << 8 & 0xFFFF ^ CRC_TABLE[value >> 8 ^ byte]
    return value


def _crc_row(value: int) -> int:
    for _ in range(8):
        value = (value << 1 ^ 0x8005 if value & 0x8000 else value << 1) & 0xFFFF
    return value


CRC_TABLE = [_crc_row(byte << 8) for byte in range(256)]
