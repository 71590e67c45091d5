"""The settings of a log-mel spectrogram."""

import hashlib

from pydantic import BaseModel, Field, model_validator


class MelSettings(BaseModel, frozen=True, extra="forbid"):
    """How a waveform becomes a log-mel spectrogram."""

    sample_rate_hz: int = Field(
        22_050, ge=8_000, le=192_000, description="Rate that audio is resampled to, in Hz"
    )
    window: int = Field(2_048, ge=64, le=32_768, description="Samples in one FFT window")
    hop: int = Field(512, ge=1, description="Samples between the starts of two frames")
    bands: int = Field(128, ge=8, le=512, description="Mel bands")
    low_hz: float = Field(0.0, ge=0.0, description="Lowest frequency of the mel bands, in Hz")
    high_hz: float | None = Field(
        None, gt=0.0, description="Highest frequency of the mel bands, in Hz; empty for half the sample rate"
    )

    @model_validator(mode="after")
    def _bands_are_below_nyquist(self) -> "MelSettings":
        if not self.low_hz < self.top_hz <= self.sample_rate_hz / 2:
            raise ValueError(
                f"mel bands from --low-hz {self.low_hz} to --high-hz {self.top_hz}: the first must be the lower, the "
                f"second at most half of --sample-rate-hz ({self.sample_rate_hz / 2})"
            )
        return self

    @property
    def top_hz(self) -> float:
        """The highest frequency of the mel bands, in Hz: `high_hz`, or half the sample rate."""
        return self.high_hz or self.sample_rate_hz / 2

    @property
    def settings_hash(self) -> str:
        """The hash of these settings: equal for two stores if and only if their settings are."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def count_frames(self, seconds: float) -> int:
        """Return the number of frames of that many seconds of audio, at least one."""
        return max(1, 1 + (int(seconds * self.sample_rate_hz) - self.window) // self.hop)
