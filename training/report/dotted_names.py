"""Nested settings as one list, "network.width" naming the width within the network."""

from collections.abc import Iterator, Mapping
from typing import Any


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of each setting that is not itself a group of settings."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
