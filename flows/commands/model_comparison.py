"""Two model versions compared on their common test tracks, and a version exported: what needs their weights."""

import pyarrow as pa
from rich.table import Table

from store.errors import BadInput
from store.fs.files import absolute, join
from store.fs.parquet import read_table
from store.model_registry import resolve_version
from training.evaluation.held_out_predictions import HELD_OUT_PREDICTIONS_FILE, HELD_OUT_PREDICTIONS_SCHEMA
from training.inference.model_version import read_identity
from training.inference.onnx_export import export_onnx
from training.selection.champion import Candidate, compare_candidates
from training.selection.comparison import Comparison, Gain, GenreGain

UNKNOWN = "-"


def compare_models(root: str, one: str, other: str) -> tuple[Table, list[str]]:
    """Compare two versions on the test tracks that both were heard on; the first stands for the champion.

    Raises: BadInput if a version did not keep what it heard, or the two share no test track.
    """
    urls = resolve_version(root, one), resolve_version(root, other)
    comparison = compare_candidates(read_candidate(urls[0]), read_candidate(urls[1]))
    rows = comparison_rows(comparison, _last(urls[0]), _last(urls[1]))
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*row.values())
    share = comparison.macro_f1.share_better
    told = f"{comparison.tracks:,} test tracks by {comparison.artists:,} artists"
    if share is not None:
        told += f"; {_last(urls[1])} has the higher macro F1 in {share:.1%} of the resamples"
    return table, [told]


def comparison_rows(comparison: Comparison, one: str, other: str) -> list[dict[str, str]]:
    """Lay out a comparison, scores first, then the F1 of each genre with its number of tracks."""
    gains: list[tuple[str, Gain | GenreGain]] = [
        ("macro F1", comparison.macro_f1),
        ("accuracy", comparison.accuracy),
        ("log-loss", comparison.log_loss),
        *((f"F1 of {it.genre} ({it.support})", it) for it in comparison.genres),
    ]
    return [
        {
            "score": name,
            one: _figure(gain.champion),
            other: _figure(gain.challenger),
            "gain": _figure(gain.gain, "+.3f"),
            "95 % interval": UNKNOWN if gain.low is None else f"{gain.low:+.3f} to {gain.high:+.3f}",
        }
        for name, gain in gains
    ]


def export_model(root: str, which: str, target: str) -> str:
    """Write a version's network as an ONNX file, compared with it first.

    Raises: BadInput if there is no such version, they differ, or the extra `onnx` is not installed.
    """
    url = resolve_version(root, which)
    worst = export_onnx(url, read_identity(url), absolute(target))
    return f"{target}: ONNX of {_last(url)}; it says the same but for {worst:.0e} (dB in, logits out)"


def read_candidate(url: str) -> Candidate:
    """Read a version and what it said. Raises: BadInput if it did not keep that, or the file is damaged."""
    identity = read_identity(url)
    where = join(url, HELD_OUT_PREDICTIONS_FILE)
    try:
        heard = read_table(where)
    except FileNotFoundError:
        raise BadInput(
            f"{url}: has no stored predictions ({HELD_OUT_PREDICTIONS_FILE} is missing); train it again"
        ) from None
    except (pa.ArrowInvalid, OSError) as why:
        raise BadInput(
            f"{where}: cut short or damaged ({_first_line(why)}); restore it from a copy"
        ) from None
    lacking = [name for name in HELD_OUT_PREDICTIONS_SCHEMA.names if name not in heard.column_names]
    if lacking:
        raise BadInput(
            f"{where}: has no column {', '.join(lacking)}; "
            f"wanted {', '.join(HELD_OUT_PREDICTIONS_SCHEMA.names)}: restore it"
        )
    return Candidate(identity, heard, identity.genres)


def _figure(value: float | None, form: str = ".3f") -> str:
    return UNKNOWN if value is None else format(value, form)


def _first_line(why: Exception) -> str:
    return (str(why).splitlines() or [type(why).__name__])[0]


def _last(url: str) -> str:
    return url.rstrip("/").rsplit("/", 1)[-1]
