"""How files are written."""

from typing import Literal

from pydantic import BaseModel, Field


class WriteSettings(BaseModel, frozen=True, extra="forbid"):
    """How files are written."""

    mtime: Literal["keep", "now"] = Field(
        "keep", description="Time of modification after tagging: keep it as it was, or now"
    )
    hard_links: Literal["refuse", "break"] = Field(
        "refuse",
        description="Files with several names (hard links): refuse them, or break the link, "
        "so that only the name that was listed gets the new tags",
    )
