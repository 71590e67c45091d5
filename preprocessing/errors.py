"""What is wrong with an audio file, said so that it can be counted."""

from typing import Literal

from store.errors import SpectrogramOneError

Reason = Literal[
    "missing",
    "no-permission",
    "empty",
    "not-audio",
    "unsupported",
    "truncated",
    "too-short",
    "too-long",
    "silent",
    "checksum",
    "decoder-killed",
    "decoder-hung",
    "decoder-out-of-memory",
]

# Rejects for what a file did to the process that decoded it; another try, or more time or memory, may end otherwise.
FATAL_REASONS: tuple[Reason, ...] = ("decoder-killed", "decoder-hung", "decoder-out-of-memory")


class BadAudio(SpectrogramOneError, ValueError):
    """The file cannot be used and trying again will not help: record it, go on."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)  # both, so that the error survives the way from a worker
        self.reason: Reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
