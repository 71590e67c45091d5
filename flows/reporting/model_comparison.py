"""Two model versions compared on their common test tracks, as rows of a table."""

import pyarrow as pa

from store.errors import BadInput
from store.fs.files import join
from store.fs.parquet import read_table
from training.evaluation.held_out_predictions import HELD_OUT_PREDICTIONS_FILE, HELD_OUT_PREDICTIONS_SCHEMA
from training.inference.model_version import read_identity
from training.selection.champion import Candidate
from training.selection.comparison import Comparison, Gain, GenreGain

UNKNOWN = "-"


def read_candidate(version_url: str) -> Candidate:
    """Read a version and its held-out predictions. Raises: BadInput if they are missing or damaged."""
    identity = read_identity(version_url)
    url = join(version_url, HELD_OUT_PREDICTIONS_FILE)
    try:
        predictions = read_table(url)
    except FileNotFoundError:
        raise BadInput(
            f"{version_url}: has no stored predictions ({HELD_OUT_PREDICTIONS_FILE} is missing); train it again"
        ) from None
    except (pa.ArrowInvalid, OSError) as why:
        raise BadInput(f"{url}: truncated or damaged ({_first_line(why)}); restore it from a copy") from None
    missing = [name for name in HELD_OUT_PREDICTIONS_SCHEMA.names if name not in predictions.column_names]
    if missing:
        raise BadInput(
            f"{url}: has no column {', '.join(missing)}; wanted {', '.join(HELD_OUT_PREDICTIONS_SCHEMA.names)}: "
            "restore it from a copy"
        )
    return Candidate(identity, predictions, identity.genres)


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


def _first_line(why: Exception) -> str:
    return (str(why).splitlines() or [type(why).__name__])[0]
