"""The settings of fitting temperature and thresholds."""

from typing import Literal

from pydantic import BaseModel, Field


class CalibrationSettings(BaseModel, frozen=True, extra="forbid"):
    """How temperature and thresholds are fitted on the validation tracks."""

    goal: Literal["f1", "precision"] = Field(
        "f1",
        description="f1: the threshold with the best F1 for each genre; precision: the lowest threshold that "
        "reaches the wanted precision",
    )
    precision: float = Field(
        0.9,
        gt=0.0,
        le=1.0,
        description="Share of a genre's assignments that must be correct (goal precision)",
    )
    fit_temperature: bool = Field(
        True,
        description="Fit a temperature, so that of the predictions with a probability of 80 % about 80 % are correct",
    )
