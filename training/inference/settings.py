"""The settings of selecting genres for files, and the backends that run a network."""

from typing import Literal

from pydantic import BaseModel, Field


class GenreSelectionSettings(BaseModel, frozen=True, extra="forbid"):
    """How a model's probabilities become the genres of a file."""

    kind: Literal["auto", "top", "multi", "path"] = Field(
        "auto",
        description="top: the likeliest genre; multi: all genres that reach their thresholds; path: from a root of "
        "the genre tree down, as long as thresholds are reached; auto: as the model was trained",
    )
    min_confidence: float = Field(
        0.0, ge=0.0, le=1.0, description="Assign no genre with a probability below this"
    )
    abstain: bool = Field(
        False,
        description="Assign the likeliest genre only if it reaches the threshold fitted in training (kind top)",
    )
    precision: float | None = Field(
        None,
        gt=0.0,
        le=1.0,
        description="Share of each genre's assignments that must be correct on the validation tracks",
    )
    genres: tuple[str, ...] = Field(
        (), description="Assign only these genres; empty for all genres of the model"
    )
    max_genres: int = Field(
        0, ge=0, description="Assign at most this many genres a file, the likeliest; 0 for all"
    )
    smooth_albums: bool = Field(
        False, description="Average each file's prediction with the mean prediction of its album"
    )
    per_album: bool = Field(
        False,
        description="Assign the same genres to all tracks of an album in a folder, by their mean prediction; tracks "
        "that disagree strongly are named",
    )

    @property
    def uses_albums(self) -> bool:
        """Return whether the prediction of a track depends on the other tracks of its album."""
        return self.smooth_albums or self.per_album


Backend = Literal["torch", "onnx"]
