"""Which genres are selected for a track, and when none is.

Axes: T tracks, G genres.

A genre is selected only if its probability reaches its threshold. "No genre" and "unknown genre"
are never selected: such a track is unsure, and its file stays as it is.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from store.dataset.genre_tree import ancestor_indices
from training.evaluation.calibration import UNREACHABLE_THRESHOLD, propagate_to_ancestors
from training.evaluation.probabilities import clip_probabilities, expit, logit, softmax
from training.inference.model_version import ModelIdentity

DISAGREEMENT_PROBABILITY = 0.5  # of another genre, by the track alone
DISAGREEMENT_RATIO = 5.0  # of that genre's probability to that of its album's genre, by the track alone
OWN_WEIGHT = 0.5  # of a track's own prediction, beside that of its album: see DECISIONS.md
SelectionKind = Literal["top", "multi", "path"]
Probabilities = NDArray[np.float64]
Mask = NDArray[np.bool_]


class SelectionRules(BaseModel, frozen=True, extra="forbid"):
    """How one model's probabilities become genres: fitted once for a run."""

    kind: SelectionKind
    thresholds: tuple[Annotated[float, Field(ge=0.0, allow_inf_nan=False)], ...] = Field(
        description="Lowest probability at which each genre is selected; above 1 for never"
    )
    keeps_precision: bool = Field(False, description="The thresholds were fitted to keep a precision")
    genres: tuple[str, ...] = Field((), description="Those that may be selected; empty for all")
    max_genres: int = 0
    smooth_albums: bool = False
    per_album: bool = False
    notes: tuple[str, ...] = Field(
        (), description="The precision on the validation tracks, and genres that are never selected"
    )


@dataclass(frozen=True)
class GenreSelection:
    """The genres selected for one track, the likeliest first; none, with the reason, if the model is unsure."""

    status: Literal["selected", "unsure"]
    reason: str | None  # low-confidence | imprecise-genre | not-requested; of a selected one: album-disagrees
    detail: str | None
    genres: tuple[str, ...]
    confidence: float  # the probability of the likeliest selected genre; if unsure, of the likeliest one
    probability_G: Probabilities


def select_genres(
    raw_TG: Probabilities, albums: Sequence[str | None], identity: ModelIdentity, rules: SelectionRules
) -> list[GenreSelection]:
    """Select the genres of each track. Shapes: (T, G), the network's own probabilities.

    `albums` names the album of each track; None is a track without one.
    """
    assert len(albums) == len(raw_TG), "an album or None for each track"
    if not len(raw_TG):
        return []
    own_TG = identity.calibration.calibrate(raw_TG, identity.genres, identity.training.target)
    probability_TG = own_TG
    if rules.per_album:
        probability_TG = smooth_over_albums(own_TG, albums, identity, own_weight=0.0)
    elif rules.smooth_albums:
        probability_TG = smooth_over_albums(own_TG, albums, identity)
    selected_TG = selection_mask(probability_TG, identity, rules)
    order_TG = _order_by_probability(probability_TG, identity)
    selections = [
        _select_for_track(*track, identity, rules)
        for track in zip(probability_TG, selected_TG, order_TG, strict=True)
    ]
    if rules.per_album:
        return [_mark_disagreement(*pair, identity) for pair in zip(selections, own_TG, strict=True)]
    return selections


def selection_mask(probability_TG: Probabilities, identity: ModelIdentity, rules: SelectionRules) -> Mask:
    """Return which genres are selected, by calibrated probabilities. Shapes: (T, G) -> (T, G)."""
    reached_TG = probability_TG >= np.array(rules.thresholds)
    if not rules.keeps_precision:  # else no child's threshold is lower than its parent's
        match rules.kind:
            case "multi" if identity.training.target == "multi":
                reached_TG = propagate_to_ancestors(reached_TG, identity.genres, identity.calibration.parents)
            case "path":
                above = implied_ancestors(identity, rules.kind)
                paths = [reached_TG[:, [genre, *line]].all(axis=1) for genre, line in enumerate(above)]
                reached_TG = np.stack(paths, axis=1)
    return reached_TG & candidate_mask(probability_TG, identity, rules)


def candidate_mask(probability_TG: Probabilities, identity: ModelIdentity, rules: SelectionRules) -> Mask:
    """Return which genres may be selected, whatever the thresholds. Shapes: (T, G) -> (T, G)."""
    order_TG = _order_by_probability(probability_TG, identity)
    match rules.kind:
        case "top":
            candidate_TG = order_TG[:, :1] == np.arange(len(identity.genres))
        case "multi":
            candidate_TG = np.ones(probability_TG.shape, bool)
        case "path":
            candidate_TG = _likeliest_path(probability_TG, identity)
    if rules.genres:
        candidate_TG = candidate_TG & np.isin(identity.genres, rules.genres)
    if rules.max_genres:
        sorted_TG = np.take_along_axis(candidate_TG, order_TG, axis=1)
        few_TG = sorted_TG & (sorted_TG.cumsum(axis=1) <= rules.max_genres)
        np.put_along_axis(candidate_TG, order_TG, few_TG, axis=1)
    return np.asarray(candidate_TG)


def smooth_over_albums(
    probability_TG: Probabilities,
    albums: Sequence[str | None],
    identity: ModelIdentity,
    *,
    own_weight: float = OWN_WEIGHT,
) -> Probabilities:
    """Average each track's log-odds with the mean of its album, whose tracks mostly share genres.

    Shapes: (T, G) -> (T, G). Where tracks have one genre, log-probabilities are averaged.
    Source: logarithmic opinion pool (Genest and Zidek, 1986), "Combining probability distributions".
    """
    members: dict[str, list[int]] = defaultdict(list)
    for row, album in enumerate(albums):
        if album:
            members[album].append(row)
    is_top = identity.training.target == "top"
    smoothed_TG = probability_TG.copy()
    for rows in members.values():
        if len(rows) > 1:
            own_TG = clip_probabilities(probability_TG[rows])
            logits_TG = np.log(own_TG) if is_top else logit(own_TG)
            mean_TG = own_weight * logits_TG + (1 - own_weight) * logits_TG.mean(axis=0)
            smoothed_TG[rows] = softmax(mean_TG) if is_top else expit(mean_TG)
    if is_top:
        return smoothed_TG
    return propagate_to_ancestors(smoothed_TG, identity.genres, identity.calibration.parents)


def implied_ancestors(identity: ModelIdentity, kind: SelectionKind) -> list[tuple[int, ...]]:
    """Return the indices of the ancestors selected with each genre: none where a track has one genre."""
    if kind == "top" or identity.training.target == "top":
        return [()] * len(identity.genres)
    return ancestor_indices(identity.genres, identity.calibration.parents)


def _likeliest_path(probability_TG: Probabilities, identity: ModelIdentity) -> Mask:
    """Walk from the likeliest root to the likeliest child, and on to a leaf. Shapes: (T, G) -> (T, G)."""
    parent_G = np.array([line[0] if line else -1 for line in implied_ancestors(identity, "path")])
    path_TG = np.zeros(probability_TG.shape, bool)
    node_T = np.full(len(probability_TG), -1)
    unfinished_T = np.ones(len(probability_TG), bool)
    while unfinished_T.any():
        child_TG = (parent_G == node_T[:, None]) & unfinished_T[:, None]
        unfinished_T = child_TG.any(axis=1)
        node_T = np.where(child_TG, probability_TG, -1.0).argmax(axis=1)
        path_TG[np.flatnonzero(unfinished_T), node_T[unfinished_T]] = True
    return path_TG


def _order_by_probability(probability_TG: Probabilities, identity: ModelIdentity) -> NDArray[np.intp]:
    """Order the genres of each track, the likeliest first; of equals an ancestor first. Shapes: (T, G) -> (T, G)."""
    depth_G = [len(line) for line in ancestor_indices(identity.genres, identity.calibration.parents)]
    depth_TG = np.broadcast_to(depth_G, probability_TG.shape)
    return np.asarray(np.lexsort((depth_TG, -probability_TG), axis=1))


def _mark_disagreement(
    selection: GenreSelection, own_G: Probabilities, identity: ModelIdentity
) -> GenreSelection:
    """Return the selection of an album with the genre that one of its tracks is predicted alone, if it differs much."""
    if not selection.genres:
        return selection
    best = int(own_G.argmax())
    name, album_genre = identity.genres[best], selection.genres[0]
    own_of_album = float(own_G[identity.genres.index(album_genre)])
    if (
        name in selection.genres
        or own_G[best] < DISAGREEMENT_PROBABILITY
        or own_G[best] < DISAGREEMENT_RATIO * own_of_album
    ):
        return selection
    detail = f"alone {name} {own_G[best]:.2f}, {album_genre} {own_of_album:.2f}"
    return replace(selection, reason="album-disagrees", detail=detail)


def _select_for_track(
    probability_G: Probabilities,
    selected_G: Mask,
    order_G: NDArray[np.intp],
    identity: ModelIdentity,
    rules: SelectionRules,
) -> GenreSelection:
    selected = [genre for genre in order_G if selected_G[genre]]
    if selected:
        names = tuple(identity.genres[genre] for genre in selected)
        return GenreSelection("selected", None, None, names, float(probability_G[selected[0]]), probability_G)
    first = order_G[0]
    name, probability, threshold = (
        identity.genres[first],
        float(probability_G[first]),
        rules.thresholds[first],
    )
    reason = "low-confidence"
    if threshold >= UNREACHABLE_THRESHOLD:
        reason = "imprecise-genre"
    elif probability >= threshold:
        reason = "not-requested"
    return GenreSelection("unsure", reason, f"{name} {probability:.2f}", (), probability, probability_G)
