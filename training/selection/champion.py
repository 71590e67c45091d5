"""Champion and challenger, whose genres may differ: compared on the genres and test tracks they share.

Axes: T tracks, G genres.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store.errors import BadInput
from training.evaluation.calibration import Calibration
from training.evaluation.held_out_predictions import select_split, to_matrix
from training.evaluation.probabilities import PROBABILITY_EPSILON
from training.fit.labels import select_labelled_tracks
from training.inference.model_version import ModelIdentity
from training.selection.comparison import Comparison, compare


@dataclass(frozen=True)
class Candidate:
    """A model and its predictions, HELD_OUT_PREDICTIONS_SCHEMA; `truth_genres` are the columns of their truth."""

    identity: ModelIdentity
    predictions: pa.Table
    truth_genres: tuple[str, ...]


def compare_candidates(champion: Candidate, challenger: Candidate, *, margin: float = 0.0) -> Comparison:
    """Compare two models on the test tracks that both predicted, by the genres that both have.

    Raises: BadInput if they share less than two genres or no test track, or have different targets.
    """
    target = challenger.identity.training.target
    shared = shared_genres(champion.identity, challenger.identity)
    champion_rows, challenger_rows = (restrict_to_genres(each, shared) for each in (champion, challenger))
    champion_rows = _keep_tracks_of(champion_rows, challenger_rows)
    return compare(
        champion_rows,
        _keep_tracks_of(challenger_rows, champion_rows),
        shared,
        target,
        champion_calibration=_restrict_calibration(champion.identity, shared),
        challenger_calibration=_restrict_calibration(challenger.identity, shared),
        margin=margin,
    )


def shared_genres(champion: ModelIdentity, challenger: ModelIdentity) -> tuple[str, ...]:
    """Return the genres that both have, in the challenger's order.

    Raises: BadInput if these are less than two, or the targets differ.
    """
    targets = champion.training.target, challenger.training.target
    if targets[0] != targets[1]:
        raise BadInput(
            f"the champion was trained for target {targets[0]}, the challenger for {targets[1]}: they cannot "
            "be compared; train for the same target, or promote one with `spectrogram-one models promote`"
        )
    shared = tuple(genre for genre in challenger.genres if genre in champion.genres)
    if len(shared) < 2:
        raise BadInput(
            f"champion and challenger share {len(shared)} genres ({', '.join(champion.genres)}; "
            f"{', '.join(challenger.genres)}); a comparison needs two: choose one with "
            "`spectrogram-one models promote`"
        )
    return shared


def count_incomparable_tracks(tracks: pa.Table, champion: ModelIdentity, challenger: ModelIdentity) -> int:
    """Count the test tracks of a snapshot whose genres are all in one of the two models only."""
    known = [*challenger.genres, *(genre for genre in champion.genres if genre not in challenger.genres)]
    tests = select_split(select_labelled_tracks(tracks, challenger.training.target, known), "test")
    in_both = [genre in champion.genres and genre in challenger.genres for genre in known]
    return sum(
        not any(has and shared for has, shared in zip(row, in_both, strict=True))
        for row in tests["target"].to_pylist()
    )


def restrict_to_genres(candidate: Candidate, shared: Sequence[str]) -> pa.Table:
    """Return the test tracks that have a shared genre, with truth and probabilities of the shared genres only."""
    tests = select_split(candidate.predictions, "test")
    if not len(tests):
        return tests
    genres = candidate.identity.genres
    truth_TG = to_matrix(tests, "truth")[:, [candidate.truth_genres.index(genre) for genre in shared]]
    probability_TG = to_matrix(tests, "probabilities")[:, [genres.index(genre) for genre in shared]]
    if candidate.identity.training.target == "top" and len(shared) < len(genres):
        total_T1 = probability_TG.sum(axis=1, keepdims=True)
        probability_TG = probability_TG / np.maximum(total_T1, PROBABILITY_EPSILON)
    for name, values_TG in (("truth", truth_TG), ("probabilities", probability_TG)):
        index = tests.schema.get_field_index(name)
        values = pa.array(values_TG.tolist(), tests.schema.field(name).type)
        tests = tests.set_column(index, tests.schema.field(name), values)
    return tests.filter(pa.array((truth_TG > 0).any(axis=1)))


def _keep_tracks_of(rows: pa.Table, others: pa.Table) -> pa.Table:
    return rows.filter(pc.is_in(rows["track_id"], value_set=others["track_id"].combine_chunks()))


def _restrict_calibration(identity: ModelIdentity, shared: Sequence[str]) -> Calibration:
    """Return a model's calibration for some of its genres."""
    calibration = identity.calibration
    threshold_of = dict(zip(identity.genres, calibration.thresholds, strict=False))
    return calibration.model_copy(
        update={
            "thresholds": tuple(threshold_of[genre] for genre in shared) if threshold_of else (),
            "parents": {
                child: parent
                for child, parent in calibration.parents.items()
                if child in shared and parent in shared
            },
        }
    )
