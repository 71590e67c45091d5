"""The sources of what is known of a track beside its sound."""

from typing import Literal

Source = Literal["album", "artist", "title"]
