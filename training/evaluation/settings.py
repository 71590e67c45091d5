"""What thresholds and calibration are fitted for."""

from typing import Literal

from pydantic import BaseModel, Field


class CalibrationSettings(BaseModel, frozen=True, extra="forbid"):
    """What the probabilities are turned into answers for."""

    goal: Literal["f1", "precision"] = Field(
        "f1",
        description="f1: thresholds of the best F1 a genre; precision: the lowest that keep the wanted one",
    )
    precision: float = Field(
        0.9, gt=0.0, le=1.0, description="Share of told genres that must be right (goal precision)"
    )
    fit_temperature: bool = Field(
        True, description="Fit a temperature, so that of what is said with 80 % about 80 % are right"
    )
