"""predictions.parquet as another program left it: its columns, and whether each row is of a file of its run."""

import re
from collections.abc import Mapping, Sequence

from store.errors import BadInput
from store.fs.files import join, local_path
from store.tagging.predictions import PREDICTIONS_SCHEMA, open_predictions
from store.tagging.run import TaggingRun

ROWS_AT_ONCE = 4_096
PANDAS_INDEX = re.compile(r"__index_level_\d+__")  # what pandas adds for an index without a name


def check_parquet(url: str, about: Mapping[str, str], runs: str) -> None:
    """Raise BadInput for an unknown column, a file that is there twice, and one that the run does not have.

    The latter is found where the folder of the run is on a disk: beside the file, or in the folder of runs.
    """
    with open_predictions(url) as file:
        _check_columns(url, file.schema_arrow.names)
        run = _find_run(url, about.get("run", ""), runs)
        planned = None if run is None else _planned_files(run)
        batches = file.iter_batches(ROWS_AT_ONCE, columns=["track_id"])
        rows: dict[str, int] = {}
        for number, name in enumerate((name for it in batches for name in it["track_id"].to_pylist()), 1):
            if name in rows:
                reason = f"is in row {rows[name]} already; keep one of them"
            elif run is not None and planned is not None and name is not None and name not in planned:
                reason = f"is no file of the run {run.name}; remove the row, or correct its name"
            else:
                if name is not None:
                    rows[name] = number
                continue
            raise BadInput(f"{url}: row {number}: {name!r} {reason}")


def _check_columns(url: str, names: Sequence[str]) -> None:
    """Raise BadInput for a column that no run wrote: it may be a misspelt one, whose corrections would be lost."""
    known = PREDICTIONS_SCHEMA.names
    unknown = [name for name in names if name not in known and not PANDAS_INDEX.fullmatch(name)]
    if unknown:
        raise BadInput(
            f"{url}: unknown column {unknown[0]!r}; known are {', '.join(known)}; correct or remove it"
        )
    double = [name for name in names if names.count(name) > 1]
    if double:
        raise BadInput(f"{url}: the column {double[0]!r} is there twice; remove one of them")


def _find_run(url: str, name: str, runs: str) -> TaggingRun | None:
    """Return the run that a table is of; None if its folder is on no disk at hand: in a bucket, reading takes long."""
    beside = url.rpartition("/")[0]
    for folder in (beside, join(runs, name) if name else ""):
        run = TaggingRun(folder)
        if folder and local_path(folder) and name in ("", run.name) and run.planned_parts() is not None:
            return run
    return None


def _planned_files(run: TaggingRun) -> set[str]:
    parts = run.planned_parts() or []
    return {name for table in run.tables("plan", parts) for name in table["track_id"].to_pylist()}
