"""A finding of `spectrogram-one doctor`: what was found, and what to do about a problem."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was checked on this machine."""

    level: Level
    subject: str
    found: str
    advice: str = ""

    def line(self) -> str:
        """Return the finding as one line."""
        text = f"{self.level:<8} {self.subject}: {self.found}{f'; {self.advice}' if self.advice else ''}"
        return text.replace("\n", " ")


def ok(subject: str, found: str) -> Finding:
    return Finding("ok", subject, found)


def warning(subject: str, found: str, advice: str) -> Finding:
    return Finding("warning", subject, found, advice)


def problem(subject: str, found: str, advice: str) -> Finding:
    return Finding("problem", subject, found, advice)
