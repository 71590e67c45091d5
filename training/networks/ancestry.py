"""What a start has learned from, it and those it began with: none of it may judge what comes of it."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from store.errors import BadInput
from store.fs.files import absolute, join
from store.fs.parquet import read_table
from store.model_registry import read_card
from training.networks.settings import is_state_dict_file


def check_data_leakage(weights: str, tracks: pa.Table, store: str) -> list[str]:
    """Refuse a start that learned from validation or test tracks of a run; say what could not be looked at.

    Raises: BadInput if a model version, or one of those it came from, was trained on any of them.

    `tracks` are the run's (track_id, split), of the store at the URL `store`. Models that were
    trained on another store are passed over: there the same ids may be other tracks.
    """
    unseen = tracks.filter(pc.not_equal(tracks["split"], "training"))["track_id"].combine_chunks()
    notes: list[str] = []
    for url, learned in _learned_by(weights, store, notes):
        known = unseen.filter(pc.is_in(unseen, value_set=learned))
        if len(known):
            who = url if url == weights else f"{weights}: its ancestor {url}"
            raise BadInput(
                f"{who} was trained on {len(known):,} of the {len(unseen):,} validation and test tracks of this "
                f"run, such as {known[0]}: the scores would lie; keep the splits that it was trained with, or "
                "start from fresh weights"
            )
    return notes


def _learned_by(weights: str, store: str, notes: list[str]) -> Iterator[tuple[str, pa.Array]]:
    """Yield each model that a start came from, and its training tracks; note where none can be told."""
    url: str | None = weights
    seen: set[str] = set()
    while url and url not in seen and not is_state_dict_file(url):
        seen.add(url)
        try:
            card = read_card(url)
            if absolute(card["snapshot"]).rsplit("/", 2)[0] == absolute(store):
                rows = read_table(join(card["run"], "tracks.parquet"), ("track_id", "split"))
                yield url, rows.filter(pc.equal(rows["split"], "training"))["track_id"].combine_chunks()
        except (BadInput, OSError, LookupError, pa.ArrowInvalid) as why:
            reason = str(why) if isinstance(why, BadInput) else f"{type(why).__name__}: {why}"
            notes.append(f"{url}: what this start learned from cannot be told ({reason}), so not checked")
            if isinstance(why, BadInput):
                return
        url = card.get("parent")
