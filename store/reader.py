"""The public face of a dataset: `open_snapshot(STORE)` gives its tracks and their spectrograms."""

from store.dataset.reader import Snapshot, open_snapshot

__all__ = ["Snapshot", "open_snapshot"]
