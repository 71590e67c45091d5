"""Which genres are assigned, and what runs the network."""

from typing import Literal

from pydantic import BaseModel, Field


class GenreSelectionSettings(BaseModel, frozen=True, extra="forbid"):
    """What is made of the model's probabilities."""

    kind: Literal["auto", "top", "multi", "path"] = Field(
        "auto",
        description="top: the likeliest genre; multi: all that reach their thresholds; path: from a root of the "
        "genre tree down, as long as thresholds are reached; auto: as the model was trained",
    )
    min_confidence: float = Field(
        0.0, ge=0.0, le=1.0, description="Tell no genre that is less probable than this"
    )
    abstain: bool = Field(
        False,
        description="Tell the likeliest genre only if it reaches the threshold it got in training (kind top)",
    )
    precision: float | None = Field(
        None,
        gt=0.0,
        le=1.0,
        description="Share of what is told of each genre that must be right on the validation tracks",
    )
    genres: tuple[str, ...] = Field((), description="Tell these genres only; empty for all the model knows")
    max_genres: int = Field(
        0, ge=0, description="Tell at most so many genres of a file, the likeliest; 0 for all"
    )
    smooth_albums: bool = Field(
        False, description="Let what was heard of the other tracks of an album count for half"
    )


Backend = Literal["torch", "onnx"]
