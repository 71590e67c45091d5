"""The settings of decoding: which parts of a track, and its limits."""

from pydantic import BaseModel, Field, model_validator

from preprocessing.mel.settings import MelSettings


class WindowSettings(BaseModel, frozen=True, extra="forbid"):
    """Which parts of a track the model predicts from."""

    count: int = Field(3, ge=1, le=100, description="Windows of each track, evenly spaced")
    length_s: float = Field(10.0, ge=0.5, le=600.0, description="Length of a window, in seconds")
    whole_track: bool = Field(
        False, description="Predict from crops of the whole track instead, which decodes all of it"
    )

    @model_validator(mode="after")
    def _are_part_of_a_track(self) -> "WindowSettings":
        if self.count * self.length_s > 600:
            raise ValueError(
                f"--count {self.count} windows of --length-s {self.length_s:g} are more than ten minutes; "
                "take fewer, or the whole track"
            )
        return self

    def covers_track(self, frames: int, mel: MelSettings) -> bool:
        """Return whether a track of so many frames is decoded from end to end."""
        return self.whole_track or frames <= mel.count_frames(self.count * self.length_s)


class ExcerptSettings(BaseModel, frozen=True, extra="forbid"):
    """Which part of each track becomes a spectrogram."""

    start_s: float = Field(0.0, ge=0.0, description="Start of the excerpt, in seconds")
    duration_s: float | None = Field(
        None, gt=0.0, description="Duration of the excerpt, in seconds; empty for the rest of the track"
    )

    @property
    def is_whole(self) -> bool:
        """Whether the excerpt is the whole track."""
        return self.start_s == 0 and self.duration_s is None


class LimitSettings(BaseModel, frozen=True, extra="forbid"):
    """The limits beyond which a track is rejected."""

    timeout_s: float = Field(60.0, gt=0.0, description="Seconds that decoding a track may take")
    timeout_s_per_mb: float = Field(
        5.0, ge=0.0, description="Further seconds for each megabyte of the file; decoding needs about 0.1"
    )
    memory_gib: float = Field(
        1.0,
        gt=0.0,
        description="Memory that decoding a track may take, in GiB, beyond that of an idle decoder",
    )
    max_duration_h: float = Field(12.0, gt=0.0, description="Duration that a track may have, in hours")
