"""Which parts of a track are decoded, and what that may cost."""

from pydantic import BaseModel, Field, model_validator

from preprocessing.mel.settings import MelSettings


class WindowSettings(BaseModel, frozen=True, extra="forbid"):
    """Which parts of a track are listened to."""

    count: int = Field(3, ge=1, le=100, description="Windows of each track, evenly spaced")
    length_s: float = Field(10.0, ge=0.5, le=600.0, description="Length of a window, in seconds")
    whole_track: bool = Field(
        False, description="Listen to crops over the whole track instead, which decodes all of it"
    )

    @model_validator(mode="after")
    def _are_a_part(self) -> "WindowSettings":
        if self.count * self.length_s > 600:
            raise ValueError(
                f"{self.count} windows of {self.length_s:g} s are more than ten minutes; take fewer, or the whole track"
            )
        return self

    def covers_track(self, frames: int, mel: MelSettings) -> bool:
        """Say whether a track of so many frames is listened to from end to end."""
        return self.whole_track or frames <= mel.count_frames(self.count * self.length_s)


class ExcerptSettings(BaseModel, frozen=True, extra="forbid"):
    """Which part of each track is listened to."""

    start_s: float = Field(0.0, ge=0.0, description="Where the excerpt starts, in seconds")
    duration_s: float | None = Field(
        None, gt=0.0, description="How long it is, in seconds; empty for the rest of the track"
    )

    @property
    def is_whole(self) -> bool:
        """Say whether all of the track is listened to."""
        return self.start_s == 0 and self.duration_s is None


class LimitSettings(BaseModel, frozen=True, extra="forbid"):
    """What one track may cost before it is given up."""

    timeout_s: float = Field(60.0, gt=0.0, description="Seconds that decoding any track may take")
    timeout_s_per_mb: float = Field(
        5.0, ge=0.0, description="Seconds more for each megabyte of the file; decoding needs about 0.1"
    )
    memory_gib: float = Field(
        1.0, gt=0.0, description="Memory that decoding one track may take beyond what the decoder starts with"
    )
    max_duration_h: float = Field(12.0, gt=0.0, description="Hours that a track may play")
