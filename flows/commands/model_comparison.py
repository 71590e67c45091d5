"""Two model versions compared on their common test tracks, as a table for the terminal."""

from rich.table import Table

from flows.reporting.model_comparison import comparison_rows, read_candidate
from store.fs.files import last_part
from store.model_registry import resolve_version
from training.selection.champion import compare_candidates


def compare_models(root: str, one: str, other: str) -> tuple[Table, list[str]]:
    """Compare two versions on the test tracks that both have predictions for, the first as champion.

    Raises: BadInput if a version has no stored predictions, or the two share no test track.
    """
    urls = resolve_version(root, one), resolve_version(root, other)
    names = [last_part(url) for url in urls]
    comparison = compare_candidates(read_candidate(urls[0]), read_candidate(urls[1]))
    rows = comparison_rows(comparison, names[0], names[1])
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*row.values())
    line = f"{comparison.tracks:,} test tracks by {comparison.artists:,} artists"
    share = comparison.macro_f1.share_better
    if share is not None:
        line += f"; {names[1]} has the higher macro F1 in {share:.1%} of the resamples"
    return table, [line]
