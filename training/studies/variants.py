"""The kinds of spectrograms of the study: scale, level, bands, hop, window, excerpt, normalisation, storage."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from preprocessing.features.scaled_spectrogram import Frequency, Level, scaled_spectrogram
from preprocessing.mel.settings import MelSettings
from preprocessing.mel.transform import log_mel
from training.studies.storage import FORMATS, StorageFormat, round_trip

Normalisation = Literal["none", "track", "band"]
PICTURE_SIZE = 256  # frames and bands of the pictures that the project began with
PICTURE_S = 30.0
MIN_STD_DB = 1e-3


@dataclass(frozen=True)
class Variant:
    """One kind of spectrogram; all but what `part` names is as in the product."""

    name: str
    part: str
    mel: MelSettings
    frequency: Frequency = "mel"
    level: Level = "db"
    normalisation: Normalisation = "none"
    excerpt_s: float | None = None
    crop_s: float | None = None  # of the training; None for the setting
    storage: StorageFormat = "float32"

    def compute(self, wave_S: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the spectrogram of a waveform. Shapes: (S,) -> (F, M). Raises: BadAudio as log_mel does."""
        if self.excerpt_s is not None:
            wave_S = wave_S[: int(self.excerpt_s * self.mel.sample_rate_hz)]
        if (self.frequency, self.level) == ("mel", "db"):
            values_FM = log_mel(wave_S, self.mel)
        else:
            values_FM = scaled_spectrogram(wave_S, self.mel, self.frequency, self.level)
        return round_trip(normalise(values_FM, self.normalisation), self.storage)


def normalise(values_FM: NDArray[np.float32], how: Normalisation) -> NDArray[np.float32]:
    """Return values with the mean and the standard deviation of music in dB, by track or by band of a track."""
    if how == "none":
        return values_FM
    axis = 0 if how == "band" else None
    mean, std = values_FM.mean(axis=axis, keepdims=True), values_FM.std(axis=axis, keepdims=True)
    return np.asarray((values_FM - mean) / np.maximum(std, MIN_STD_DB) * 30 - 10, np.float32)


def list_variants(base: MelSettings) -> list[Variant]:
    """Return the variants: the product's spectrogram, and others that differ from it in one thing."""

    def mel(**changes: int) -> MelSettings:
        return base.model_copy(update=changes)

    picture_hop = int(PICTURE_S * base.sample_rate_hz / PICTURE_SIZE)
    variants = [
        Variant("base", "base", base),
        Variant("frequency-linear", "frequency", base, frequency="linear"),
        Variant("frequency-log", "frequency", base, frequency="log"),
        Variant("level-log1p", "level", base, level="log1p"),
        Variant("level-pcen", "level", base, level="pcen"),
        *(
            Variant(f"bands-{bands}", "bands", mel(bands=bands))
            for bands in (64, 96, 128, 256)
            if bands != base.bands
        ),
        *(Variant(f"hop-{hop}", "hop", mel(hop=hop)) for hop in (base.hop // 2, base.hop * 2)),
        *(
            Variant(f"window-{window}", "window", mel(window=window))
            for window in (base.window // 2, base.window * 2)
        ),
        Variant("picture-256", "picture", mel(bands=PICTURE_SIZE, hop=picture_hop), crop_s=PICTURE_S - 2),
        *(Variant(f"excerpt-{s:g}s", "excerpt", base, excerpt_s=s) for s in (5.0, 10.0)),
        *(Variant(f"crop-{s:g}s", "crop", base, crop_s=s) for s in (2.0, 8.0)),
        *(
            Variant(f"normalised-by-{how}", "normalisation", base, normalisation=how)
            for how in ("track", "band")
        ),
        *(Variant(f"stored-{name}", "storage", base, storage=name) for name in FORMATS if name != "float32"),
    ]
    return variants
