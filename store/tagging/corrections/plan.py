"""The predictions of an earlier run as the plan of another: from its Parquet file or its CSV table, as corrected."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from store.errors import BadInput
from store.fs.files import exists, join
from store.tagging.corrections.csv_table import CsvTable, read_csv_table
from store.tagging.corrections.parquet_rows import check_parquet
from store.tagging.predictions import (
    PREDICTIONS_FILE,
    PREDICTIONS_SCHEMA,
    planned_row,
    read_predictions,
    table_rows,
)
from store.tags.vocabulary.spelling import spelling_key

GENRES = "genres"  # of the metadata: the names that the model and the map of the run can give
ROWS_AT_ONCE = 4_096
MAX_NAMED, MAX_KNOWN = 5, 24  # genres in a refusal


class CorrectedPlan:
    """A file of predictions, checked as a whole when it is opened.

    The file may come from another machine: a row outside its source is skipped.
    """

    def __init__(self, url: str, source: str, runs: str) -> None:
        """Open the file. Raises: BadInput if it cannot be used, or names no source and `source` does not either."""
        self.url = url
        self._table = read_csv_table(url) if url.lower().endswith(".csv") else None
        self._parquet = url if self._table is None else _find_parquet(self._table, runs)
        self.about, _ = read_predictions(self._parquet, 1)
        self.source = source or self.about.get("source", "")
        if not self.source:
            raise BadInput(f"{url}: names no source; name the files with --source")
        if self._table is None:
            check_parquet(url, self.about, runs)
        else:
            rows = (
                row for table in read_predictions(self._parquet, ROWS_AT_ONCE)[1] for row in table_rows(table)
            )
            self._table.check_files(row["track_id"] for row in rows)

    @property
    def known_genres(self) -> tuple[str, ...] | None:
        """The names that the run could give; None if the file does not contain them."""
        text = self.about.get(GENRES)
        return None if text is None else tuple(json.loads(text))

    def model_version(self) -> str | None:
        """Return the name of the model version of the first row to be applied; None if none is."""
        changes = (row for row in self.rows(ROWS_AT_ONCE) if row["status"] == "change")
        first = next(changes, None)
        return None if first is None else str(first["model_version"] or "")

    def rows(self, rows_at_once: int) -> Iterator[dict[str, Any]]:
        """Yield the rows of the plan. Raises: BadInput for a correction that cannot be applied."""
        return (row for rows in self._batches(rows_at_once) for row in rows)

    def tables(self, rows_at_once: int) -> Iterator[pa.Table]:
        """Yield the rows of the plan, some at a time, as PREDICTIONS_SCHEMA. Raises: as `rows`."""
        return (
            pa.Table.from_pylist(rows, schema=PREDICTIONS_SCHEMA)
            for rows in self._batches(rows_at_once)
            if rows
        )

    def check_genres(self, known: Collection[str]) -> None:
        """Raise BadInput if rows assign genres that are none of these, in any spelling, and that their files lack."""
        keys = {spelling_key(name) for name in known}
        first_files: dict[str, str] = {}
        for row in self.rows(ROWS_AT_ONCE):
            if row["status"] != "change":
                continue
            for name in sorted(set(row["genres"] or ()) - set(row["old_genres"] or ())):
                if spelling_key(name) not in keys:
                    first_files.setdefault(name, row["track_id"])
        if first_files:
            (name, file), *others = first_files.items()
            raise BadInput(
                f"{self.url}: {file!r} is to get {name!r}, which neither the model nor the map "
                f"has{_nor([name for name, _ in others], known)}; correct it, or allow such genres with "
                "--allow-new-genres"
            )

    def _batches(self, rows_at_once: int) -> Iterator[list[dict[str, Any]]]:
        _, tables = read_predictions(self._parquet, rows_at_once)
        for table in tables:
            rows = (self._correct(row) for row in table_rows(table))
            yield [planned_row(row, self.source) for row in rows if row is not None]

    def _correct(self, row: dict[str, Any]) -> dict[str, Any] | None:
        return row if self._table is None else self._table.correct(row)


def _nor(unknown: Sequence[str], known: Collection[str]) -> str:
    """Return which further names are unknown, and the known ones unless they are many."""
    texts = []
    if unknown:
        more = f" and {len(unknown) - MAX_NAMED} more" if len(unknown) > MAX_NAMED else ""
        texts.append(f"nor {', '.join(map(repr, unknown[:MAX_NAMED]))}{more}")
    if 0 < len(known) <= MAX_KNOWN:
        texts.append(f"they have {', '.join(sorted(set(known)))}")
    return f" ({'; '.join(texts)})" if texts else ""


def _find_parquet(table: CsvTable, runs: str) -> str:
    """Return the Parquet file of the run that a CSV is of: it has the signatures of the files, and their URLs."""
    beside = join(table.url.rpartition("/")[0] or ".", PREDICTIONS_FILE)
    for url in (beside, join(runs, table.run, PREDICTIONS_FILE)):
        if exists(url) and _run_of(read_predictions(url, 1)[0]) == table.run:
            return url
    raise BadInput(
        f"{table.url}: is of the run {table.run}, whose {PREDICTIONS_FILE} is neither beside it nor in {runs}; name "
        "the folder of runs with --runs"
    )


def _run_of(about: Mapping[str, str]) -> str:
    return about.get("run", "")
