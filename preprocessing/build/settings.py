"""The settings of a build."""

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
        description="Type that values are stored in: float32 is exact, float16 within 0.03 dB, uint8 within 0.28 dB",
    )

    def recipe(self) -> Recipe:
        """Return what a dataset that is made with these settings records of them."""
        return Recipe(self.mel.model_dump(), self.mel.settings_hash, self.encoding, self.excerpt.model_dump())
