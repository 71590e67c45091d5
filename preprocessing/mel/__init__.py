"""Log-mel spectrograms: their settings, and the transform."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preprocessing.mel.settings import MelSettings
    from preprocessing.mel.transform import log_mel

__all__ = ["MelSettings", "log_mel"]


def __getattr__(name: str) -> object:
    """Import on first use: importing the settings must not import numpy."""
    match name:
        case "MelSettings":
            from preprocessing.mel.settings import MelSettings

            return MelSettings
        case "log_mel":
            from preprocessing.mel.transform import log_mel

            return log_mel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
