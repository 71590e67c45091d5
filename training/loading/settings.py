"""The closed sets of values that decide which crops are read, and in which order."""

from typing import Literal

Balance = Literal["none", "genre", "artist", "genre-artist"]
Reading = Literal["random", "runs"]


def needs_artists(balance: Balance) -> bool:
    """Return whether the choice of crops depends on artists."""
    return balance in ("artist", "genre-artist")
