"""Text from other people's files, made safe to print: a control character could command a terminal."""

import re

# Control characters, and those that change the direction of text, which can hide how a name ends.
INVISIBLE_CHARS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def mark_invisible(text: str) -> str:
    """Show invisible characters by their codes: ESC as \\x1b."""
    return INVISIBLE_CHARS.sub(_code, text)


def _code(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
