"""The selection rules of a run: thresholds from the model, or fitted on its validation tracks to keep a precision.

Axes: T tracks, G genres, C thresholds: the ranks at which a list sorted by probability may be divided.
"""

from collections.abc import Sequence

import numpy as np

from store.errors import BadInput, first_line
from store.fs.files import join
from training.evaluation.calibration import UNREACHABLE_THRESHOLD, propagate_to_ancestors
from training.evaluation.calibration_fitting import MIN_POSITIVES, rank_thresholds
from training.evaluation.held_out_predictions import (
    HELD_OUT_PREDICTIONS_FILE,
    read_held_out_predictions,
    select_split,
    to_matrix,
)
from training.inference.genre_selection import (
    Mask,
    Probabilities,
    SelectionKind,
    SelectionRules,
    candidate_mask,
    implied_ancestors,
    selection_mask,
)
from training.inference.model_version import ModelIdentity
from training.inference.settings import GenreSelectionSettings


def fit_selection_rules(
    identity: ModelIdentity, version_url: str, settings: GenreSelectionSettings
) -> SelectionRules:
    """Return the selection rules of a model version; fit thresholds on its validation tracks if a precision is wanted.

    Raises: BadInput if the model cannot select in this way, or has no predictions to fit a precision on.
    """
    check_known_genres(settings.genres, identity)
    kind = _resolve_kind(identity, settings)
    always_top = kind == "top" and not settings.abstain
    own_G = identity.calibration.thresholds_for(identity.genres)
    if settings.precision is not None or always_top:
        own_G = (0.0,) * len(identity.genres)
    rules = SelectionRules(
        kind=kind,
        thresholds=tuple(max(settings.min_confidence, own) for own in own_G),
        genres=settings.genres,
        max_genres=settings.max_genres,
        smooth_albums=settings.smooth_albums,
        per_album=settings.per_album,
    )
    if settings.precision is None:
        return rules
    return _fit_precision(rules, identity, version_url, settings.precision)


def check_known_genres(genres: Sequence[str], identity: ModelIdentity) -> None:
    """Raise: BadInput if a genre is none of the model's."""
    for genre in genres:
        if genre not in identity.genres:
            raise BadInput(f"genre {genre!r}: not one of this model's: {', '.join(identity.genres)}")


def _resolve_kind(identity: ModelIdentity, settings: GenreSelectionSettings) -> SelectionKind:
    if settings.kind == "auto":
        return identity.training.target
    if settings.kind == "path" and not (identity.training.target == "multi" and identity.calibration.parents):
        raise BadInput(
            "kind path: this model has no genre tree; use top or multi, or train with "
            "--training.target multi on a source that has a tree"
        )
    return settings.kind


def _fit_precision(
    rules: SelectionRules, identity: ModelIdentity, version_url: str, precision: float
) -> SelectionRules:
    truth_TG, raw_TG = _read_validation(version_url, identity)
    probability_TG = identity.calibration.calibrate(raw_TG, identity.genres, identity.training.target)
    thresholds, notes = _precise_thresholds(truth_TG, probability_TG, identity, rules, precision)
    fitted = rules.model_copy(update={"thresholds": thresholds, "keeps_precision": True})
    share = selection_mask(probability_TG, identity, fitted).any(axis=1).mean()
    summary = (
        f"Of each genre's assignments on the {len(truth_TG):,} validation tracks, at least {precision:.0%} are "
        f"correct, with crops as in training and without album smoothing; {share:.0%} of the tracks get a genre."
    )
    return fitted.model_copy(update={"notes": (summary, *notes)})


def _read_validation(version_url: str, identity: ModelIdentity) -> tuple[Mask, Probabilities]:
    """Read truth and probabilities of the version's validation tracks. Raises: BadInput if there are none."""
    url, advice = join(version_url, HELD_OUT_PREDICTIONS_FILE), "leave the precision out, or train again"
    try:
        predictions = read_held_out_predictions(version_url, ("split", "truth", "probabilities"))
        rows = select_split(predictions, "validation")
        truth_TG, raw_TG = to_matrix(rows, "truth") > 0, to_matrix(rows, "probabilities")
    except BadInput as why:
        raise BadInput(f"{why}, or leave the precision out, which is fitted on them") from None
    except ValueError as why:
        raise BadInput(
            f"{url}: tracks differ in their number of genres ({first_line(why)}); {advice}"
        ) from None
    if not len(rows):
        raise BadInput(f"{url}: has no validation track, and a precision is fitted on those; {advice}")
    if not truth_TG.shape[1] == raw_TG.shape[1] == len(identity.genres):
        raise BadInput(
            f"{url}: {raw_TG.shape[1]} probabilities a track for {len(identity.genres)} genres; {advice}"
        )
    if identity.training.target == "multi":
        truth_TG = propagate_to_ancestors(truth_TG, identity.genres, identity.calibration.parents)
    return truth_TG, raw_TG


def _precise_thresholds(
    truth_TG: Mask,
    probability_TG: Probabilities,
    identity: ModelIdentity,
    rules: SelectionRules,
    precision: float,
) -> tuple[tuple[float, ...], list[str]]:
    """Return each genre's lowest threshold that keeps the precision, and notes on the genres that have none.

    Parents are fitted first, and no child's threshold is lower than its parents'. So the thresholds alone
    ensure that a genre is selected with its parents: each genre keeps its own precision, and a higher
    threshold of a parent only removes assignments.
    """
    genres, above = identity.genres, implied_ancestors(identity, rules.kind)
    candidate_TG = candidate_mask(probability_TG, identity, rules)
    is_requested = [genre in (rules.genres or genres) for genre in genres]
    thresholds, notes = list(rules.thresholds), {}
    for genre in sorted(np.flatnonzero(is_requested), key=lambda genre: len(above[genre])):
        parents = [each for each in above[genre] if is_requested[each]]
        floor = max([thresholds[genre], *(thresholds[each] for each in parents)])
        open_T = candidate_TG[:, genre] & (probability_TG[:, genre] >= floor)
        positives = int(truth_TG[:, genre].sum())
        thresholds[genre], why = _lowest_threshold(
            truth_TG[open_T, genre], probability_TG[open_T, genre], positives, precision
        )
        if thresholds[genre] >= UNREACHABLE_THRESHOLD:
            barred = [genres[each] for each in parents if thresholds[each] >= UNREACHABLE_THRESHOLD]
            why = f"its ancestor {barred[0]} is never assigned" if barred else why
            notes[genre] = f"{genres[genre]} is never assigned: {why}"
    return tuple(thresholds), [notes[genre] for genre in sorted(notes)]


def _lowest_threshold(
    has_T: Mask, probability_T: Probabilities, positives: int, precision: float
) -> tuple[float, str]:
    """Return the lowest threshold with the precision, or UNREACHABLE_THRESHOLD and the reason.

    The genre needs MIN_POSITIVES tracks, and as many assignments: a precision of fewer is luck.
    """
    if positives < MIN_POSITIVES:
        few = f"{positives:,} validation tracks have it" if positives != 1 else "1 validation track has it"
        return UNREACHABLE_THRESHOLD, f"{few}; a precision takes {MIN_POSITIVES}"
    if len(has_T) < MIN_POSITIVES:
        return UNREACHABLE_THRESHOLD, (
            f"it could be assigned to {len(has_T):,} validation tracks at most; a precision takes {MIN_POSITIVES}"
        )
    sorted_T, rank_C, correct_C = rank_thresholds(has_T, probability_T)
    enough_C = rank_C + 1 >= MIN_POSITIVES
    rank_C, correct_C = rank_C[enough_C], correct_C[enough_C]
    precision_C = correct_C / (rank_C + 1)
    precise_C = rank_C[precision_C >= precision]
    if len(precise_C):
        return float(sorted_T[precise_C[-1]]), ""
    best = np.argmax(precision_C)
    return UNREACHABLE_THRESHOLD, (
        f"at best {correct_C[best]:,} of {rank_C[best] + 1:,} assignments on the validation tracks are correct "
        f"({precision_C[best]:.0%}; {precision:.0%} is wanted)"
    )
