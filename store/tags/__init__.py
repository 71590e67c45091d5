"""Genre tags inside one audio file, by format."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store.tags.write import read_genres, write_genres

__all__ = ["read_genres", "write_genres"]


def __getattr__(name: str) -> object:
    """Import on first use: policies and maps are needed where mutagen is not."""
    if name in __all__:
        from store.tags import write

        return getattr(write, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
