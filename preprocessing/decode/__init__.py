"""Audio files to waveforms and spectrograms."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preprocessing.decode.waveform import decode

__all__ = ["decode"]


def __getattr__(name: str) -> object:
    """Import on first use: importing the settings of this package must not import its decoders."""
    if name == "decode":
        from preprocessing.decode.waveform import decode

        return decode
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
