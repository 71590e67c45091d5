"""The format of an audio file, from its first bytes.

A decoder turns some files that are no audio, such as web pages, into noise: so the format is checked first.
"""

from preprocessing.decode.container.mpeg_frames import find_mpeg_frame, id3_end, is_free_format

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
    return "mpeg" if find_mpeg_frame(body) is not None or is_free_format(body) else None


def _find_adts(body: bytes) -> bool:
    """Return whether raw AAC starts here: two ADTS headers, one frame apart."""
    if len(body) < 7 or body[0] != 0xFF or body[1] & 0xF6 != 0xF0:
        return False
    size = (body[3] & 3) << 11 | body[4] << 3 | body[5] >> 5
    return size > 7 and body[size : size + 1] == b"\xff" and body[size + 1 : size + 2] == body[1:2]
