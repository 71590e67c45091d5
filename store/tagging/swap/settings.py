"""The settings of writing files."""

from typing import Literal

from pydantic import BaseModel, Field


class WriteSettings(BaseModel, frozen=True, extra="forbid"):
    """The settings of writing tags into files."""

    mtime: Literal["keep", "now"] = Field(
        "keep", description="Time of modification after tagging: keep the old one, or set it to now"
    )
    owner: Literal["keep", "change"] = Field(
        "keep",
        description="Files of another user, which this user may write but not give back: leave them as they are, "
        "or let them change hands to this user; each is reported",
    )
    hard_links: Literal["refuse", "break"] = Field(
        "refuse",
        description="Files with several names (hard links): refuse them, or break the link, "
        "so that only the listed name gets the new tags",
    )
