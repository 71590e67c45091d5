"""A run over a catalogue: a folder that says what is to become of every file, and what did.

RUNS/NAME/run.json            what was asked for, written first
RUNS/NAME/plan/PART.parquet   what is to become of the files of one batch
RUNS/NAME/plan.json           names all parts: the plan is complete, nothing was written before
RUNS/NAME/journal/...         what files were, before they are touched
RUNS/NAME/done/PART.parquet   what became of a part's files
RUNS/NAME/summary.json        written last: the run is over
RUNS/inference/KEY/PART.parquet   what batches sounded like, for every run that listens in the same way
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa

from store.errors import BadInput
from store.fs.files import exists, join, list_names, put_if_absent, read_bytes, write_atomic
from store.fs.parquet import read_table, write_table

RUN, PLAN, SUMMARY, INFERENCE = "run.json", "plan.json", "summary.json", "inference"
KEY_LETTERS = 8
Folder = Literal["plan", "done"]


@dataclass(frozen=True)
class TaggingRun:
    """Where a run lies."""

    url: str

    @property
    def name(self) -> str:
        """The name by which it is undone."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def journal_url(self) -> str:
        """Where it is noted what files were."""
        return join(self.url, "journal")

    def read_part(self, folder: Folder, part: str) -> pa.Table:
        """Read one part of the plan, or of what was done. Raises: FileNotFoundError."""
        return read_table(self._part_url(folder, part))

    def write_part(self, folder: Folder, part: str, rows: pa.Table) -> None:
        """Keep a part, whole."""
        write_table(self._part_url(folder, part), rows)

    def list_parts(self, folder: Folder) -> list[str]:
        """List the parts that are there."""
        names = list_names(join(self.url, folder))
        whole = (name for name in names if not name.startswith("."))  # what a killed process left is hidden
        return [name.removesuffix(".parquet") for name in whole if name.endswith(".parquet")]

    def tables(self, folder: Folder, parts: Iterable[str]) -> Iterator[pa.Table]:
        """Read parts one after the other."""
        return (self.read_part(folder, part) for part in parts)

    def complete_plan(self, parts: Sequence[str]) -> None:
        """Say that the plan is all there: from now on nothing is listened to, and files may be written."""
        write_atomic(join(self.url, PLAN), json.dumps({"parts": parts}).encode())

    def planned_parts(self) -> list[str] | None:
        """Name the parts of the plan in order, or None while it is not complete."""
        plan = _read_json(join(self.url, PLAN))
        return None if plan is None else list(plan["parts"])

    def has_started_writing(self) -> bool:
        """Say whether files, or copies of them, may have been written."""
        return self.has_journal() or bool(self.list_parts("done"))

    def has_journal(self) -> bool:
        """Say whether files themselves may have been written."""
        return bool(list_names(self.journal_url))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Say that the run is over, and how it ended."""
        write_atomic(join(self.url, SUMMARY), json.dumps(summary, indent=1).encode())

    def summary(self) -> dict[str, Any] | None:
        """Tell how it ended; None if it has not."""
        return _read_json(join(self.url, SUMMARY))

    def request(self) -> dict[str, Any]:
        """Tell what was asked for."""
        return _read_json(join(self.url, RUN)) or {}

    def inference_urls(self) -> list[str]:
        """Return the folders of cached predictions beside this run."""
        folder = join(self.url.rsplit("/", 1)[0], INFERENCE)
        return [join(folder, key) for key in list_names(folder)]

    def _part_url(self, folder: Folder, part: str) -> str:
        return join(self.url, folder, f"{part}.parquet")


def open_run(runs: str, request: Mapping[str, Any]) -> TaggingRun:
    """Begin a run, or take up the last one that was asked for the same and is not over."""
    content = json.dumps(request, indent=1, sort_keys=True).encode()
    key = hashlib.sha256(content).hexdigest()[:KEY_LETTERS]
    names = (name for name in list_names(runs) if name.endswith(f"-{key}"))
    alike = [TaggingRun(join(runs, name)) for name in names if exists(join(runs, name, RUN))]
    if alike and alike[-1].summary() is None:
        return alike[-1]
    run = TaggingRun(join(runs, f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{key}"))
    put_if_absent(join(run.url, RUN), content)
    return run


def list_runs(runs: str) -> list[TaggingRun]:
    """List the runs, oldest first."""
    named = [name for name in list_names(runs) if name != INFERENCE]
    return [TaggingRun(join(runs, name)) for name in named if exists(join(runs, name, RUN))]


def find_run(runs: str, which: str) -> TaggingRun:
    """Find a run that wrote into files: "latest", its name, or the beginning of it.

    Where the latest is an undo that is not over, what it undoes is found: it goes on then.

    Raises: BadInput if there is none, several begin so, or it wrote nothing.
    """
    known = list_runs(runs)
    writing = [run for run in known if run.has_journal()]
    found = writing[-1:] if which == "latest" else [run for run in known if run.name.startswith(which)]
    if len(found) > 1:
        names = ", ".join(run.name for run in found)
        raise BadInput(f"{runs}: {len(found)} runs begin with {which}: {names}; give more of it")
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
    """Name the folder of what was heard after all that decides what is heard."""
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return join(runs, INFERENCE, key[:12])


def _read_json(url: str) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(read_bytes(url))
    except FileNotFoundError:
        return None
    return content
