"""How all spectrograms of a dataset were made."""

from dataclasses import dataclass
from typing import Any, Literal

Encoding = Literal["float16", "float32", "uint8"]


@dataclass(frozen=True)
class Recipe:
    """How all spectrograms of a dataset were made: it holds one recipe only."""

    mel_settings: dict[str, Any]
    mel_fingerprint: str
    encoding: Encoding
    excerpt: dict[str, float | None]
