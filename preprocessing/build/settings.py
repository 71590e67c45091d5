"""How a track becomes a stored spectrogram."""

from pydantic import BaseModel, Field

from preprocessing.decode.settings import ExcerptSettings
from preprocessing.mel.settings import MelSettings
from store.dataset.recipe import Encoding, Recipe


class SpectrogramSettings(BaseModel, frozen=True, extra="forbid"):
    """How a track becomes a stored spectrogram."""

    mel: MelSettings = MelSettings()
    excerpt: ExcerptSettings = ExcerptSettings()
    encoding: Encoding = Field(
        "float16",
        description="How values are stored: float32 exact, float16 within 0.03 dB, uint8 within 0.28 dB",
    )

    def recipe(self) -> Recipe:
        """Say what a dataset made with these settings is stamped with."""
        return Recipe(self.mel.model_dump(), self.mel.settings_hash, self.encoding, self.excerpt.model_dump())
