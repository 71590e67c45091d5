"""Which genres a tagger tells of a track, and when it rather says nothing.

Axes: T tracks, G genres, C cuts: the places where a list sorted by probability may end.

A probability reaches a genre's threshold or the genre is not told; that a track has no genre, or
an unknown one, is never an answer: it is left alone.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from scipy.special import expit, logit, softmax

from store.errors import BadInput
from store.fs.files import join
from store.fs.parquet import read_table
from training.evaluation.calibration import (
    MIN_POSITIVES,
    PROBABILITY_EPSILON,
    UNREACHABLE_THRESHOLD,
    ancestor_indices,
    propagate_to_ancestors,
)
from training.evaluation.tables import to_matrix
from training.inference.model_version import ModelIdentity
from training.inference.settings import GenreSelectionSettings

HELD_OUT_PREDICTIONS_FILE = "report/held_out_predictions.parquet"
OWN_WEIGHT = 0.5  # of a track's own voice where its album speaks, too: see DECISIONS.md
SelectionKind = Literal["top", "multi", "path"]
Probabilities = NDArray[np.float64]
Mask = NDArray[np.bool_]


class SelectionRules(BaseModel, frozen=True, extra="forbid"):
    """How one model's probabilities become answers: settled once for a run."""

    kind: SelectionKind
    thresholds: tuple[Annotated[float, Field(ge=0.0, allow_inf_nan=False)], ...] = Field(
        description="Lowest probability of each genre to be told; above 1 for never"
    )
    keeps_precision: bool = Field(False, description="The thresholds were fitted to keep a precision")
    genres: tuple[str, ...] = Field((), description="Those that may be told; empty for all")
    max_genres: int = 0
    smooth_albums: bool = False
    notes: tuple[str, ...] = Field((), description="What could be promised, and which genres are never told")


@dataclass(frozen=True)
class GenreSelection:
    """What is told of one track, the likeliest first; nothing, with the reason, if the model is unsure."""

    status: Literal["selected", "unsure"]
    reason: str | None  # low-confidence | imprecise-genre | not-requested
    detail: str | None
    genres: tuple[str, ...]
    confidence: float  # the probability of the likeliest genre that is told, or could have been
    probability_G: Probabilities


def fit_selection_rules(
    identity: ModelIdentity, version_url: str, settings: GenreSelectionSettings
) -> SelectionRules:
    """Settle how a model version answers; where a precision is wanted, fit thresholds on its validation tracks.

    Raises: BadInput if the model cannot answer so, or kept nothing to fit a precision on.
    """
    check_known_genres(settings.genres, identity)
    kind = _settle_kind(identity, settings)
    plain = {
        "genres": settings.genres,
        "max_genres": settings.max_genres,
        "smooth_albums": settings.smooth_albums,
    }
    if settings.precision is None:
        forced = kind == "top" and not settings.abstain
        own_G = identity.calibration.thresholds_for(identity.genres)
        floor_G = [max(settings.min_confidence, 0.0 if forced else own) for own in own_G]
        return SelectionRules(kind=kind, thresholds=tuple(floor_G), **plain)
    truth_TG, raw_TG = _read_validation(version_url, identity)
    probability_TG = identity.calibration.calibrate(raw_TG, identity.genres, identity.training.target)
    draft = SelectionRules(kind=kind, thresholds=(settings.min_confidence,) * len(identity.genres), **plain)
    thresholds, notes = _promise(truth_TG, probability_TG, identity, draft, settings.precision)
    fitted = draft.model_copy(update={"thresholds": thresholds, "keeps_precision": True})
    share = selection_mask(probability_TG, identity, fitted).any(axis=1).mean()
    first = (
        f"Of what is told of each genre on the {len(truth_TG):,} validation tracks, at least "
        f"{settings.precision:.0%} is right, when they are heard as in training and each alone; {share:.0%} of "
        "them are told a genre."
    )
    return fitted.model_copy(update={"notes": (first, *notes)})


def select_genres(
    raw_TG: Probabilities, albums: Sequence[str | None], identity: ModelIdentity, rules: SelectionRules
) -> list[GenreSelection]:
    """Say what is told of each track. Shapes: (T, G), the network's own probabilities.

    `albums` names the album of each track; None is a track that stands alone.
    """
    assert len(albums) == len(raw_TG), "an album or None for each track"
    if not len(raw_TG):
        return []
    genres, target = identity.genres, identity.training.target
    probability_TG = identity.calibration.calibrate(raw_TG, genres, target)
    if rules.smooth_albums:
        probability_TG = smooth_over_albums(probability_TG, albums, identity)
    predicted_TG, order_TG = (
        selection_mask(probability_TG, identity, rules),
        _likeliest_first(probability_TG, identity),
    )
    return [
        _answer_one(probability_G, predicted_G, order_G, identity, rules)
        for probability_G, predicted_G, order_G in zip(probability_TG, predicted_TG, order_TG, strict=True)
    ]


def selection_mask(probability_TG: Probabilities, identity: ModelIdentity, rules: SelectionRules) -> Mask:
    """Say which genres are told, by calibrated probabilities. Shapes: (T, G) -> (T, G)."""
    reached_TG = probability_TG >= np.array(rules.thresholds)
    above = _lines(identity, rules.kind)
    if not rules.keeps_precision:  # what was promised never lets a child pass where its parent does not
        match rules.kind:
            case "multi" if identity.training.target == "multi":
                reached_TG = propagate_to_ancestors(reached_TG, identity.genres, identity.calibration.parents)
            case "path":
                whole = [reached_TG[:, [place, *line]].all(axis=1) for place, line in enumerate(above)]
                reached_TG = np.stack(whole, axis=1)
    return reached_TG & _candidates(probability_TG, identity, rules)


def smooth_over_albums(
    probability_TG: Probabilities, albums: Sequence[str | None], identity: ModelIdentity
) -> Probabilities:
    """Let the tracks of one album, which mostly share their genres, speak for each other. Shapes: (T, G) -> (T, G).

    Half a track's own log-odds (log-probabilities where tracks have one genre), half the mean over its album.
    Source: logarithmic opinion pool (Genest and Zidek, 1986), "Combining probability distributions".
    """
    members: dict[str, list[int]] = defaultdict(list)
    for place, album in enumerate(albums):
        if album:
            members[album].append(place)
    is_top = identity.training.target == "top"
    smoothed_TG = probability_TG.copy()
    for places in members.values():
        if len(places) > 1:
            own_TG = probability_TG[places].clip(PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON)
            logs_TG = np.log(own_TG) if is_top else logit(own_TG)
            mixed_TG = OWN_WEIGHT * logs_TG + (1 - OWN_WEIGHT) * logs_TG.mean(axis=0)
            smoothed_TG[places] = softmax(mixed_TG, axis=1) if is_top else expit(mixed_TG)
    return (
        smoothed_TG
        if is_top
        else propagate_to_ancestors(smoothed_TG, identity.genres, identity.calibration.parents)
    )


def check_known_genres(genres: Sequence[str], identity: ModelIdentity) -> None:
    """Raises: BadInput if the model is asked for a genre it never learned."""
    for genre in genres:
        if genre not in identity.genres:
            raise BadInput(
                f"genre {genre!r}: this model never learned it; it knows {', '.join(identity.genres)}"
            )


def _settle_kind(identity: ModelIdentity, settings: GenreSelectionSettings) -> SelectionKind:
    if settings.kind == "auto":
        return identity.training.target
    if settings.kind == "path" and not (identity.training.target == "multi" and identity.calibration.parents):
        raise BadInput(
            "kind path: this model knows no genre tree; use top or multi, or train with "
            "--training.target multi on a source that has a tree"
        )
    return settings.kind


def _read_validation(version_url: str, identity: ModelIdentity) -> tuple[Mask, Probabilities]:
    """Read what the version's validation tracks are, and how it heard them. Raises: BadInput if it kept none."""
    url, advice = join(version_url, HELD_OUT_PREDICTIONS_FILE), "leave the precision out, or train again"
    try:
        heard = read_table(url, ("split", "truth", "probabilities"))
        rows = heard.filter(pc.equal(heard["split"], "validation"))
        if not len(rows):
            raise BadInput(f"{url}: no validation track in it, and a precision is fitted on those; {advice}")
        truth_TG, raw_TG = to_matrix(rows, "truth") > 0, to_matrix(rows, "probabilities")
    except FileNotFoundError:
        raise BadInput(f"{url}: this version kept nothing to fit a precision on; {advice}") from None
    except BadInput:
        raise
    except (pa.ArrowException, LookupError, ValueError) as why:
        reason = str(why).splitlines()[0]
        raise BadInput(f"{url}: not what a version heard of its tracks ({reason}); {advice}") from None
    if not truth_TG.shape[1] == raw_TG.shape[1] == len(identity.genres):
        raise BadInput(
            f"{url}: {raw_TG.shape[1]} probabilities a track for {len(identity.genres)} genres; {advice}"
        )
    if identity.training.target == "multi":
        truth_TG = propagate_to_ancestors(truth_TG, identity.genres, identity.calibration.parents)
    return truth_TG, raw_TG


def _promise(
    truth_TG: Mask,
    probability_TG: Probabilities,
    identity: ModelIdentity,
    draft: SelectionRules,
    precision: float,
) -> tuple[tuple[float, ...], list[str]]:
    """Find each genre's lowest threshold that keeps the precision, and say which have none.

    Parents come first, and no child's threshold is lower than its parents'. So whatever is told
    is told with its parents by thresholds alone: each genre keeps its own promise, and a higher
    one only ever takes answers away.
    """
    genres, above = identity.genres, _lines(identity, draft.kind)
    candidates_TG = _candidates(probability_TG, identity, draft)
    asked = [genre in (draft.genres or genres) for genre in genres]
    thresholds, notes = list(draft.thresholds), {}
    for place in sorted(np.flatnonzero(asked), key=lambda place: len(above[place])):
        barred = [
            genres[each] for each in above[place] if asked[each] and thresholds[each] >= UNREACHABLE_THRESHOLD
        ]
        floor = max([thresholds[place], *(thresholds[each] for each in above[place] if asked[each])])
        open_T = candidates_TG[:, place] & (probability_TG[:, place] >= floor)
        thresholds[place], why = _lowest_cut(
            truth_TG[open_T, place], probability_TG[open_T, place], int(truth_TG[:, place].sum()), precision
        )
        if thresholds[place] >= UNREACHABLE_THRESHOLD:
            notes[place] = f"{genres[place]} is never told: " + (
                f"{barred[0]}, which it is a kind of, is not" if barred else why
            )
    return tuple(thresholds), [notes[place] for place in sorted(notes)]


def _lowest_cut(
    has_T: Mask, probability_T: Probabilities, positives: int, precision: float
) -> tuple[float, str]:
    """Find the lowest probability from which on enough is right, or UNREACHABLE_THRESHOLD and why.

    A few tracks promise nothing: the genre must have so many, and be told of so many.
    """
    if positives < MIN_POSITIVES:
        few = f"{positives:,} validation tracks have it" if positives != 1 else "1 validation track has it"
        return UNREACHABLE_THRESHOLD, f"{few}; it takes {MIN_POSITIVES} to promise a precision"
    if len(has_T) < MIN_POSITIVES:
        return UNREACHABLE_THRESHOLD, (
            f"it could be told of {len(has_T):,} validation tracks at most; it takes {MIN_POSITIVES} to promise "
            "a precision"
        )
    order = np.argsort(-probability_T, kind="stable")
    sorted_T = probability_T[order]
    last_C = np.flatnonzero(np.append(sorted_T[1:] != sorted_T[:-1], True))  # equals are told together
    last_C = last_C[last_C + 1 >= MIN_POSITIVES]
    right_C, predicted_C = np.cumsum(has_T[order])[last_C], last_C + 1
    precise = last_C[right_C / predicted_C >= precision]
    if len(precise):
        return float(sorted_T[precise[-1]]), ""
    best = np.argmax(right_C / predicted_C)
    return UNREACHABLE_THRESHOLD, (
        f"at best {right_C[best]:,} of {predicted_C[best]:,} validation tracks told so are right "
        f"({right_C[best] / predicted_C[best]:.0%}; {precision:.0%} is wanted)"
    )


def _candidates(probability_TG: Probabilities, identity: ModelIdentity, rules: SelectionRules) -> Mask:
    """Say which genres may be told, whatever the thresholds. Shapes: (T, G) -> (T, G)."""
    order_TG = _likeliest_first(probability_TG, identity)
    match rules.kind:
        case "top":
            may_TG = order_TG[:, :1] == np.arange(len(identity.genres))
        case "multi":
            may_TG = np.ones(probability_TG.shape, bool)
        case "path":
            may_TG = _likeliest_path(probability_TG, identity)
    if rules.genres:
        may_TG = may_TG & np.isin(identity.genres, rules.genres)
    if rules.max_genres:
        sorted_TG = np.take_along_axis(may_TG, order_TG, axis=1)
        few_TG = sorted_TG & (sorted_TG.cumsum(axis=1) <= rules.max_genres)
        np.put_along_axis(may_TG, order_TG, few_TG, axis=1)
    return np.asarray(may_TG)


def _likeliest_path(probability_TG: Probabilities, identity: ModelIdentity) -> Mask:
    """Go from the likeliest root to the likeliest child, and on to a leaf. Shapes: (T, G) -> (T, G)."""
    parent_G = np.array([line[0] if line else -1 for line in _lines(identity, "path")])
    path_TG = np.zeros(probability_TG.shape, bool)
    here_T = np.full(len(probability_TG), -1)
    going_T = np.ones(len(probability_TG), bool)
    while going_T.any():
        below_TG = (parent_G == here_T[:, None]) & going_T[:, None]
        going_T = below_TG.any(axis=1)
        here_T = np.where(below_TG, probability_TG, -1.0).argmax(axis=1)
        path_TG[np.flatnonzero(going_T), here_T[going_T]] = True
    return path_TG


def _likeliest_first(probability_TG: Probabilities, identity: ModelIdentity) -> NDArray[np.intp]:
    """Order the genres of each track; of equally likely ones the wider comes first. Shapes: (T, G) -> (T, G)."""
    depth_G = [len(line) for line in ancestor_indices(identity.genres, identity.calibration.parents)]
    depth_TG = np.broadcast_to(depth_G, probability_TG.shape)
    return np.asarray(np.lexsort((depth_TG, -probability_TG), axis=1))


def _lines(identity: ModelIdentity, kind: SelectionKind) -> list[tuple[int, ...]]:
    """Give the ancestors that each genre is told with: none where one genre is told, or learned."""
    if kind == "top" or identity.training.target == "top":
        return [()] * len(identity.genres)
    return ancestor_indices(identity.genres, identity.calibration.parents)


def _answer_one(
    probability_G: Probabilities,
    predicted_G: Mask,
    order_G: NDArray[np.intp],
    identity: ModelIdentity,
    rules: SelectionRules,
) -> GenreSelection:
    told = [place for place in order_G if predicted_G[place]]
    if told:
        names = tuple(identity.genres[place] for place in told)
        return GenreSelection("selected", None, None, names, float(probability_G[told[0]]), probability_G)
    first = order_G[0]
    name, chance, threshold = identity.genres[first], float(probability_G[first]), rules.thresholds[first]
    reason = "low-confidence"
    if threshold >= UNREACHABLE_THRESHOLD:
        reason = "imprecise-genre"
    elif chance >= threshold:
        reason = "not-requested"
    return GenreSelection("unsure", reason, f"{name} {chance:.2f}", (), chance, probability_G)
