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
from training.evaluation.calibration import FEWEST_POSITIVES, NEVER, SURE, ancestors, close_upward
from training.evaluation.tables import matrix
from training.inference.model_version import ModelIdentity
from training.inference.settings import AnswerSettings

HEARD = "report/predictions.parquet"
OWN_SHARE = 0.5  # of a track's own voice where its album speaks, too: see DECISIONS.md
Kind = Literal["top", "multi", "path"]
Chances = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Answers(BaseModel, frozen=True, extra="forbid"):
    """How one model's probabilities become answers: settled once for a run."""

    kind: Kind
    thresholds: tuple[Annotated[float, Field(ge=0.0, allow_inf_nan=False)], ...] = Field(
        description="Lowest probability of each genre to be told; above 1 for never"
    )
    promised: bool = Field(False, description="The thresholds were fitted to keep a precision")
    genres: tuple[str, ...] = Field((), description="Those that may be told; empty for all")
    most: int = 0
    smooth_albums: bool = False
    notes: tuple[str, ...] = Field((), description="What could be promised, and which genres are never told")


@dataclass(frozen=True)
class Answer:
    """What is told of one track, the likeliest first; nothing, with the reason, if the model is unsure."""

    status: Literal["told", "unsure"]
    reason: str | None  # low-confidence | imprecise-genre | not-asked-for
    detail: str | None
    told: tuple[str, ...]
    confidence: float  # the probability of the likeliest genre that is told, or could have been
    chance_G: Chances


def fit_answers(identity: ModelIdentity, version_url: str, settings: AnswerSettings) -> Answers:
    """Settle how a model version answers; where a precision is wanted, fit thresholds on its validation tracks.

    Raises: BadInput if the model cannot answer so, or kept nothing to fit a precision on.
    """
    refuse_unknown_genres(settings.genres, identity)
    kind = _settle_kind(identity, settings)
    plain = {"genres": settings.genres, "most": settings.most, "smooth_albums": settings.smooth_albums}
    if settings.precision is None:
        forced = kind == "top" and not settings.abstain
        own_G = identity.decision.thresholds_of(identity.genres)
        floor_G = [max(settings.min_confidence, 0.0 if forced else own) for own in own_G]
        return Answers(kind=kind, thresholds=tuple(floor_G), **plain)
    truth_TG, raw_TG = _read_validation(version_url, identity)
    chance_TG = identity.decision.calibrate(raw_TG, identity.genres, identity.training.target)
    draft = Answers(kind=kind, thresholds=(settings.min_confidence,) * len(identity.genres), **plain)
    thresholds, notes = _promise(truth_TG, chance_TG, identity, draft, settings.precision)
    fitted = draft.model_copy(update={"thresholds": thresholds, "promised": True})
    share = tell(chance_TG, identity, fitted).any(axis=1).mean()
    first = (
        f"Of what is told of each genre on the {len(truth_TG):,} validation tracks, at least "
        f"{settings.precision:.0%} is right, when they are heard as in training and each alone; {share:.0%} of "
        "them are told a genre."
    )
    return fitted.model_copy(update={"notes": (first, *notes)})


def answer(
    raw_TG: Chances, albums: Sequence[str | None], identity: ModelIdentity, answers: Answers
) -> list[Answer]:
    """Say what is told of each track. Shapes: (T, G), the network's own probabilities.

    `albums` names the album of each track; None is a track that stands alone.
    """
    assert len(albums) == len(raw_TG), "an album or None for each track"
    if not len(raw_TG):
        return []
    genres, target = identity.genres, identity.training.target
    chance_TG = identity.decision.calibrate(raw_TG, genres, target)
    if answers.smooth_albums:
        chance_TG = smooth_over_albums(chance_TG, albums, identity)
    told_TG, order_TG = tell(chance_TG, identity, answers), _likeliest_first(chance_TG, identity)
    return [
        _answer_one(chance_G, told_G, order_G, identity, answers)
        for chance_G, told_G, order_G in zip(chance_TG, told_TG, order_TG, strict=True)
    ]


def tell(chance_TG: Chances, identity: ModelIdentity, answers: Answers) -> Flags:
    """Say which genres are told, by calibrated probabilities. Shapes: (T, G) -> (T, G)."""
    reached_TG = chance_TG >= np.array(answers.thresholds)
    above = _lines(identity, answers.kind)
    if not answers.promised:  # what was promised never lets a child pass where its parent does not
        match answers.kind:
            case "multi" if identity.training.target == "multi":
                reached_TG = close_upward(reached_TG, identity.genres, identity.decision.parents)
            case "path":
                whole = [reached_TG[:, [place, *line]].all(axis=1) for place, line in enumerate(above)]
                reached_TG = np.stack(whole, axis=1)
    return reached_TG & _candidates(chance_TG, identity, answers)


def smooth_over_albums(chance_TG: Chances, albums: Sequence[str | None], identity: ModelIdentity) -> Chances:
    """Let the tracks of one album, which mostly share their genres, speak for each other. Shapes: (T, G) -> (T, G).

    Half a track's own log-odds (log-probabilities where tracks have one genre), half the mean over its album.
    Source: logarithmic opinion pool (Genest and Zidek, 1986), "Combining probability distributions".
    """
    members: dict[str, list[int]] = defaultdict(list)
    for place, album in enumerate(albums):
        if album:
            members[album].append(place)
    is_top = identity.training.target == "top"
    smoothed_TG = chance_TG.copy()
    for places in members.values():
        if len(places) > 1:
            own_TG = chance_TG[places].clip(SURE, 1 - SURE)
            logs_TG = np.log(own_TG) if is_top else logit(own_TG)
            mixed_TG = OWN_SHARE * logs_TG + (1 - OWN_SHARE) * logs_TG.mean(axis=0)
            smoothed_TG[places] = softmax(mixed_TG, axis=1) if is_top else expit(mixed_TG)
    return smoothed_TG if is_top else close_upward(smoothed_TG, identity.genres, identity.decision.parents)


def refuse_unknown_genres(genres: Sequence[str], identity: ModelIdentity) -> None:
    """Raises: BadInput if the model is asked for a genre it never learned."""
    for genre in genres:
        if genre not in identity.genres:
            raise BadInput(
                f"genre {genre!r}: this model never learned it; it knows {', '.join(identity.genres)}"
            )


def _settle_kind(identity: ModelIdentity, settings: AnswerSettings) -> Kind:
    if settings.kind == "auto":
        return identity.training.target
    if settings.kind == "path" and not (identity.training.target == "multi" and identity.decision.parents):
        raise BadInput(
            "kind path: this model knows no genre tree; use top or multi, or train with "
            "--training.target multi on a source that has a tree"
        )
    return settings.kind


def _read_validation(version_url: str, identity: ModelIdentity) -> tuple[Flags, Chances]:
    """Read what the version's validation tracks are, and how it heard them. Raises: BadInput if it kept none."""
    url, advice = join(version_url, HEARD), "leave the precision out, or train again"
    try:
        heard = read_table(url, ("split", "truth", "probabilities"))
        rows = heard.filter(pc.equal(heard["split"], "validation"))
        if not len(rows):
            raise BadInput(f"{url}: no validation track in it, and a precision is fitted on those; {advice}")
        truth_TG, raw_TG = matrix(rows, "truth") > 0, matrix(rows, "probabilities")
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
        truth_TG = close_upward(truth_TG, identity.genres, identity.decision.parents)
    return truth_TG, raw_TG


def _promise(
    truth_TG: Flags, chance_TG: Chances, identity: ModelIdentity, draft: Answers, precision: float
) -> tuple[tuple[float, ...], list[str]]:
    """Find each genre's lowest threshold that keeps the precision, and say which have none.

    Parents come first, and no child's threshold is lower than its parents'. So whatever is told
    is told with its parents by thresholds alone: each genre keeps its own promise, and a higher
    one only ever takes answers away.
    """
    genres, above = identity.genres, _lines(identity, draft.kind)
    candidates_TG = _candidates(chance_TG, identity, draft)
    asked = [genre in (draft.genres or genres) for genre in genres]
    thresholds, notes = list(draft.thresholds), {}
    for place in sorted(np.flatnonzero(asked), key=lambda place: len(above[place])):
        barred = [genres[each] for each in above[place] if asked[each] and thresholds[each] >= NEVER]
        floor = max([thresholds[place], *(thresholds[each] for each in above[place] if asked[each])])
        open_T = candidates_TG[:, place] & (chance_TG[:, place] >= floor)
        thresholds[place], why = _lowest_cut(
            truth_TG[open_T, place], chance_TG[open_T, place], int(truth_TG[:, place].sum()), precision
        )
        if thresholds[place] >= NEVER:
            notes[place] = f"{genres[place]} is never told: " + (
                f"{barred[0]}, which it is a kind of, is not" if barred else why
            )
    return tuple(thresholds), [notes[place] for place in sorted(notes)]


def _lowest_cut(has_T: Flags, chance_T: Chances, positives: int, precision: float) -> tuple[float, str]:
    """Find the lowest probability from which on enough is right, or NEVER and why.

    A few tracks promise nothing: the genre must have so many, and be told of so many.
    """
    if positives < FEWEST_POSITIVES:
        few = f"{positives:,} validation tracks have it" if positives != 1 else "1 validation track has it"
        return NEVER, f"{few}; it takes {FEWEST_POSITIVES} to promise a precision"
    if len(has_T) < FEWEST_POSITIVES:
        return NEVER, (
            f"it could be told of {len(has_T):,} validation tracks at most; it takes {FEWEST_POSITIVES} to promise "
            "a precision"
        )
    order = np.argsort(-chance_T, kind="stable")
    sorted_T = chance_T[order]
    last_C = np.flatnonzero(np.append(sorted_T[1:] != sorted_T[:-1], True))  # equals are told together
    last_C = last_C[last_C + 1 >= FEWEST_POSITIVES]
    right_C, told_C = np.cumsum(has_T[order])[last_C], last_C + 1
    precise = last_C[right_C / told_C >= precision]
    if len(precise):
        return float(sorted_T[precise[-1]]), ""
    best = np.argmax(right_C / told_C)
    return NEVER, (
        f"at best {right_C[best]:,} of {told_C[best]:,} validation tracks told so are right "
        f"({right_C[best] / told_C[best]:.0%}; {precision:.0%} is wanted)"
    )


def _candidates(chance_TG: Chances, identity: ModelIdentity, answers: Answers) -> Flags:
    """Say which genres may be told, whatever the thresholds. Shapes: (T, G) -> (T, G)."""
    order_TG = _likeliest_first(chance_TG, identity)
    match answers.kind:
        case "top":
            may_TG = order_TG[:, :1] == np.arange(len(identity.genres))
        case "multi":
            may_TG = np.ones(chance_TG.shape, bool)
        case "path":
            may_TG = _likeliest_path(chance_TG, identity)
    if answers.genres:
        may_TG = may_TG & np.isin(identity.genres, answers.genres)
    if answers.most:
        sorted_TG = np.take_along_axis(may_TG, order_TG, axis=1)
        few_TG = sorted_TG & (sorted_TG.cumsum(axis=1) <= answers.most)
        np.put_along_axis(may_TG, order_TG, few_TG, axis=1)
    return np.asarray(may_TG)


def _likeliest_path(chance_TG: Chances, identity: ModelIdentity) -> Flags:
    """Go from the likeliest root to the likeliest child, and on to a leaf. Shapes: (T, G) -> (T, G)."""
    parent_G = np.array([line[0] if line else -1 for line in _lines(identity, "path")])
    path_TG = np.zeros(chance_TG.shape, bool)
    here_T = np.full(len(chance_TG), -1)
    going_T = np.ones(len(chance_TG), bool)
    while going_T.any():
        below_TG = (parent_G == here_T[:, None]) & going_T[:, None]
        going_T = below_TG.any(axis=1)
        here_T = np.where(below_TG, chance_TG, -1.0).argmax(axis=1)
        path_TG[np.flatnonzero(going_T), here_T[going_T]] = True
    return path_TG


def _likeliest_first(chance_TG: Chances, identity: ModelIdentity) -> NDArray[np.intp]:
    """Order the genres of each track; of equally likely ones the wider comes first. Shapes: (T, G) -> (T, G)."""
    depth_G = [len(line) for line in ancestors(identity.genres, identity.decision.parents)]
    depth_TG = np.broadcast_to(depth_G, chance_TG.shape)
    return np.asarray(np.lexsort((depth_TG, -chance_TG), axis=1))


def _lines(identity: ModelIdentity, kind: Kind) -> list[tuple[int, ...]]:
    """Give the ancestors that each genre is told with: none where one genre is told, or learned."""
    if kind == "top" or identity.training.target == "top":
        return [()] * len(identity.genres)
    return ancestors(identity.genres, identity.decision.parents)


def _answer_one(
    chance_G: Chances,
    told_G: Flags,
    order_G: NDArray[np.intp],
    identity: ModelIdentity,
    answers: Answers,
) -> Answer:
    told = [place for place in order_G if told_G[place]]
    if told:
        names = tuple(identity.genres[place] for place in told)
        return Answer("told", None, None, names, float(chance_G[told[0]]), chance_G)
    first = order_G[0]
    name, chance, threshold = identity.genres[first], float(chance_G[first]), answers.thresholds[first]
    reason = "low-confidence"
    if threshold >= NEVER:
        reason = "imprecise-genre"
    elif chance >= threshold:
        reason = "not-asked-for"
    return Answer("unsure", reason, f"{name} {chance:.2f}", (), chance, chance_G)
