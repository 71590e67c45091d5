"""The reasons for which an audio file is rejected."""

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

# The file could not be read, which is not a property of its content: the next run tries it again.
RETRYABLE_REASONS: tuple[Reason, ...] = ("missing", "no-permission")
# The file ended the process that decoded it: it may succeed with more time or memory.
FATAL_REASONS: tuple[Reason, ...] = ("decoder-killed", "decoder-hung", "decoder-out-of-memory")


class BadAudio(SpectrogramOneError, ValueError):
    """The file cannot be used: record the reason, go on."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)  # both, or it could not be unpickled
        self.reason: Reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"
