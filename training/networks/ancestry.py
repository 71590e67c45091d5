"""The training data of pretrained weights and of their ancestors, kept out of validation and test splits."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from store.dataset.snapshots import root_of_snapshot
from store.errors import BadInput
from store.fs.files import absolute, join
from store.fs.parquet import read_table
from store.model_registry import read_card
from training.networks.settings import is_state_dict_file
from training.run_files import TRACKS_FILE


def check_data_leakage(weights: str, tracks: pa.Table, store: str) -> list[str]:
    """Check that pretrained weights were not trained on validation or test tracks of a run.

    Raises: BadInput if a model version, or one of its ancestors, was trained on any of them.

    `tracks` are the run's (track_id, split), of the store at the URL `store`. Models that were
    trained on another store are passed over: there the same ids may be other tracks. Returns one
    message for each model whose training tracks cannot be read.
    """
    held_out = tracks.filter(pc.not_equal(tracks["split"], "training"))["track_id"].combine_chunks()
    unchecked: list[str] = []
    for url, trained_on in _training_tracks(weights, store, unchecked):
        leaked = held_out.filter(pc.is_in(held_out, value_set=trained_on))
        if len(leaked):
            model = url if url == weights else f"{weights}: its ancestor {url}"
            raise BadInput(
                f"{model} was trained on {len(leaked):,} of the {len(held_out):,} validation and test tracks of this "
                f"run, such as {leaked[0]}: its scores would be too high; keep the splits that it was trained with, or "
                "train from random weights"
            )
    return unchecked


def _training_tracks(weights: str, store: str, unchecked: list[str]) -> Iterator[tuple[str, pa.Array]]:
    """Yield a model and its ancestors with their training tracks; append to `unchecked` where they cannot be read."""
    url: str | None = weights
    seen: set[str] = set()
    while url and url not in seen and not is_state_dict_file(url):
        seen.add(url)
        try:
            card = read_card(url)
            if root_of_snapshot(absolute(card["snapshot"])) == absolute(store):
                rows = read_table(join(card["run"], TRACKS_FILE), ("track_id", "split"))
                yield url, rows.filter(pc.equal(rows["split"], "training"))["track_id"].combine_chunks()
        except (BadInput, OSError, LookupError, pa.ArrowInvalid) as why:
            reason = str(why) if isinstance(why, BadInput) else f"{type(why).__name__}: {why}"
            unchecked.append(
                f"{url}: its training tracks cannot be read ({reason}), so they were not checked"
            )
            if isinstance(why, BadInput):
                return
        url = card.get("parent")
