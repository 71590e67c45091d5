"""The tagging runs as a table for the terminal."""

from rich.table import Table

from store.fs.files import absolute
from store.tagging.run import list_runs


def runs_table(runs: str) -> Table:
    """Return a table of the runs, oldest first: their kind, their source and their results."""
    table = Table("run", "kind", "source", "files")
    for run in list_runs(absolute(runs)):
        request, summary = run.request(), run.summary()
        counts = ", ".join(
            f"{count:,} {status}" for status, count in (summary or {}).get("statuses", {}).items()
        )
        source = request.get("undo") or request.get("source") or request.get("apply", "")
        files = counts if summary else "unfinished: run the same command again"
        table.add_row(run.name, _kind(request), source, files)
    return table


def _kind(request: dict[str, object]) -> str:
    if "undo" in request:
        return "undo, dry run" if request["dry_run"] else "undo"
    if request["copy_to"]:
        return "copies"
    return "written" if request["write"] or request["apply"] else "dry run"
