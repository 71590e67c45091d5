"""Two model versions compared on their common test tracks, as rows of a table."""

from training.evaluation.held_out_predictions import read_held_out_predictions
from training.inference.model_version import read_identity
from training.selection.champion import Candidate
from training.selection.comparison import Comparison, Gain, GenreGain

UNKNOWN = "-"


def read_candidate(version_url: str) -> Candidate:
    """Read a version and its held-out predictions. Raises: BadInput if they are missing or damaged."""
    identity = read_identity(version_url)
    return Candidate(identity, read_held_out_predictions(version_url), identity.genres)


def comparison_rows(comparison: Comparison, champion: str, challenger: str) -> list[dict[str, str]]:
    """Return a comparison as rows, scores first, then the F1 of each genre with its number of tracks."""
    gains: list[tuple[str, Gain | GenreGain]] = [
        ("macro F1", comparison.macro_f1),
        ("accuracy", comparison.accuracy),
        ("log-loss", comparison.log_loss),
        *((f"F1 of {gain.genre} ({gain.support})", gain) for gain in comparison.genres),
    ]
    return [
        {
            "score": name,
            champion: _format(gain.champion),
            challenger: _format(gain.challenger),
            "gain": _format(gain.gain, "+.3f"),
            "95 % interval": UNKNOWN if gain.low is None else f"{gain.low:+.3f} to {gain.high:+.3f}",
        }
        for name, gain in gains
    ]


def _format(value: float | None, form: str = ".3f") -> str:
    return UNKNOWN if value is None else format(value, form)
