"""The closed sets of values in the settings of studies."""

from typing import Literal

SplitKind = Literal["official", "artist", "random"]
