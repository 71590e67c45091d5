"""The settings that all spectrograms of a dataset were made with."""

from dataclasses import dataclass
from typing import Any, Literal

Encoding = Literal["float16", "float32", "uint8"]


@dataclass(frozen=True)
class Recipe:
    """The settings that all spectrograms of a dataset were made with: one recipe a dataset."""

    mel_settings: dict[str, Any]
    mel_fingerprint: str
    encoding: Encoding
    excerpt: dict[str, float | None]
