"""A run over a catalogue: a folder with the plan for every file, and the results.

RUNS/NAME/run.json            the request, written first
RUNS/NAME/plan/PART.parquet   the plan for the files of one batch
RUNS/NAME/plan.json           the names of all parts: the plan is complete, and writing may start
RUNS/NAME/journal/...         the state of files, before they are changed
RUNS/NAME/done/PART.parquet   the results for the files of one part
RUNS/NAME/summary.json        written last: the run is over
RUNS/inference/KEY/PART.parquet   cached predictions, for every run with the same model and settings
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pyarrow as pa

from store.errors import BadInput
from store.fs.files import exists, join, last_part, list_names, put_if_absent, read_bytes, write_atomic
from store.fs.parquet import read_table, row_count, write_table

STAMP = "%Y%m%dT%H%M%S%f"
RUN, PLAN, SUMMARY, INFERENCE = "run.json", "plan.json", "summary.json", "inference"
KEY_LETTERS = 8
Folder = Literal["plan", "done"]


@dataclass(frozen=True)
class TaggingRun:
    """The folder of a run."""

    url: str

    @property
    def name(self) -> str:
        """The name of the run, by which it is undone."""
        return last_part(self.url)

    @property
    def journal_url(self) -> str:
        """The URL of the journal."""
        return join(self.url, "journal")

    def read_part(self, folder: Folder, part: str) -> pa.Table:
        """Read one part of the plan or of the results. Raises: FileNotFoundError."""
        return read_table(self._part_url(folder, part))

    def count_files(self, folder: Folder, part: str) -> int:
        """Return the number of files of one part. Raises: FileNotFoundError."""
        return row_count(self._part_url(folder, part))

    def write_part(self, folder: Folder, part: str, rows: pa.Table) -> None:
        """Write one part in one step."""
        write_table(self._part_url(folder, part), rows)

    def list_parts(self, folder: Folder) -> list[str]:
        """Return the names of the existing parts."""
        names = list_names(join(self.url, folder))
        whole = (name for name in names if not name.startswith("."))  # hidden: drafts of killed processes
        return [name.removesuffix(".parquet") for name in whole if name.endswith(".parquet")]

    def tables(self, folder: Folder, parts: Iterable[str]) -> Iterator[pa.Table]:
        """Yield parts one after the other."""
        return (self.read_part(folder, part) for part in parts)

    def complete_plan(self, parts: Sequence[str], source_counts: Mapping[str, Any] | None = None) -> None:
        """Record that the plan is complete: from now on nothing is predicted, and files may be written."""
        plan = {"parts": parts, "source_counts": source_counts}
        write_atomic(join(self.url, PLAN), json.dumps(plan).encode())

    def planned_parts(self) -> list[str] | None:
        """Return the names of the parts of the plan in order; None while it is not complete."""
        plan = _read_json(join(self.url, PLAN))
        return None if plan is None else list(plan["parts"])

    def source_counts(self) -> dict[str, Any] | None:
        """Return the account of the files of the source, as it was when the plan was completed."""
        plan = _read_json(join(self.url, PLAN))
        return None if plan is None else plan["source_counts"]

    def has_started_writing(self) -> bool:
        """Return whether files, or copies of them, may have been written."""
        return self.has_journal() or bool(self.list_parts("done"))

    def has_journal(self) -> bool:
        """Return whether files themselves may have been written."""
        return bool(list_names(self.journal_url))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Record that the run is finished, and its summary."""
        write_atomic(join(self.url, SUMMARY), json.dumps(summary, indent=1).encode())

    def summary(self) -> dict[str, Any] | None:
        """Return the summary; None while the run is not finished."""
        return _read_json(join(self.url, SUMMARY))

    def request(self) -> dict[str, Any]:
        """Return the request."""
        return _read_json(join(self.url, RUN)) or {}

    def inference_urls(self) -> list[str]:
        """Return the folders of cached predictions beside this run."""
        folder = join(self.url.rsplit("/", 1)[0], INFERENCE)
        return [join(folder, key) for key in list_names(folder)]

    def _part_url(self, folder: Folder, part: str) -> str:
        return join(self.url, folder, f"{part}.parquet")


def open_run(runs: str, request: Mapping[str, Any]) -> TaggingRun:
    """Start a run, or return the last one with the same request if it is not finished."""
    content = json.dumps(request, indent=1, sort_keys=True).encode()
    key = hashlib.sha256(content).hexdigest()[:KEY_LETTERS]
    names = (name for name in list_names(runs) if name.endswith(f"-{key}"))
    alike = [TaggingRun(join(runs, name)) for name in names if exists(join(runs, name, RUN))]
    if alike and alike[-1].summary() is None:
        return alike[-1]
    run = TaggingRun(join(runs, f"{_stamp(runs)}-{key}"))
    put_if_absent(join(run.url, RUN), content)
    return run


def _stamp(runs: str) -> str:
    """Return the present time, or the next after the last run: a clock that was set back does not change the order."""
    now = f"{datetime.now(UTC):{STAMP}}"
    last = max((name.split("-")[0] for name in list_names(runs) if name != INFERENCE), default="")
    if now > last:
        return now
    with suppress(ValueError, OverflowError):  # a folder of another name
        return f"{datetime.strptime(last, STAMP) + timedelta(microseconds=1):{STAMP}}"
    return now


def list_runs(runs: str) -> list[TaggingRun]:
    """Return the runs, oldest first."""
    named = [name for name in list_names(runs) if name != INFERENCE]
    return [TaggingRun(join(runs, name)) for name in named if exists(join(runs, name, RUN))]


def find_run(runs: str, which: str) -> TaggingRun:
    """Return a run that wrote into files: "latest", its name, or a prefix of it.

    If the latest is an undo that is not finished, return the run that it undoes, so that it continues.

    Raises: BadInput if there is none, several have the prefix, or it wrote nothing.
    """
    known = list_runs(runs)
    writing = [run for run in known if run.has_journal()]
    found = writing[-1:] if which == "latest" else [run for run in known if run.name.startswith(which)]
    if len(found) > 1:
        names = ", ".join(run.name for run in found)
        raise BadInput(f"{runs}: {len(found)} runs begin with {which}: {names}; type more of the name")
    if not found:
        raise BadInput(
            f"{runs}: no run {which} that wrote into files; `spectrogram-one tags runs` lists them, "
            "--runs names another folder"
        )
    if found[0] not in writing:
        raise BadInput(f"{found[0].url}: this run wrote into no file, so there is nothing to undo")
    undone = found[0].request().get("undo")
    if which == "latest" and undone is not None and found[0].summary() is None:
        return find_run(runs, undone)
    return found[0]


def inference_url(runs: str, settings: Mapping[str, Any]) -> str:
    """Return the folder of cached predictions, named by a hash of all settings that decide a prediction."""
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return join(runs, INFERENCE, key[:12])


def _read_json(url: str) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(read_bytes(url))
    except FileNotFoundError:
        return None
    return content
