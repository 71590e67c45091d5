"""What a study is: a question, the runs that answer it, and what is concluded from their rows."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from flows.cluster.client import Cluster
from flows.model_stages.features import load_musicnn
from flows.study_runs.settings import ExperimentSettings
from preprocessing.features.musicnn import Musicnn
from store.fs.files import absolute, join
from store.fs.parquet import read_table
from store.reader import Snapshot
from training.report.study_page import StudyFigure, StudyTable
from training.studies.summaries import Row as Row

DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class RunResult:
    """What a run returns: columns of its row, and a table that is kept beside it, such as its predictions."""

    metrics: Mapping[str, Any]
    table: pa.Table | None = None
    status: str = DONE


@dataclass(frozen=True)
class StudyRun:
    """A row of results.csv that is to be computed.

    `settings` are its columns and identify it. `prepare` returns the arguments of `body`, which a Dask worker
    calls; it is called when the run is submitted, so that a long plan stays small.
    """

    settings: Mapping[str, Any]
    body: Callable[..., RunResult]
    prepare: Callable[[], Mapping[str, Any]]

    @property
    def name(self) -> str:
        """The name of the run, by its settings."""
        return run_name(self.settings)


def run_name(settings: Mapping[str, Any]) -> str:
    """Return a hash of the settings of a run: equal for two runs of a study if and only if their settings are."""
    return hashlib.sha256(json.dumps(dict(settings)).encode()).hexdigest()[:10]


@dataclass(frozen=True)
class StudyContext:
    """What all parts of a study share: settings, spectrograms, the folder of the results, and the workers.

    `asked` are the settings as they were given; in `settings` the study's own choice fills in the rest.
    """

    asked: ExperimentSettings
    settings: ExperimentSettings
    snapshot: Snapshot
    folder: str
    cluster: Cluster

    @property
    def root(self) -> str:
        """The folder of all studies, which share computed features."""
        return absolute(self.settings.results)

    @property
    def musicnn(self) -> Musicnn | None:
        """musicnn, if the settings name its wheel. Raises: BadInput for another file, or other spectrograms."""
        return load_musicnn(self.settings.training.model, self.snapshot)

    def run_folder(self, run: str) -> str:
        """The folder of a run, by its name."""
        return join(self.folder, "runs", run)

    def read_run_table(self, run: str) -> pa.Table:
        """Read the table of a finished run. Raises: FileNotFoundError."""
        return read_table(join(self.run_folder(run), "table.parquet"))


def finished(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that did not fail."""
    return [row for row in rows if row["status"] != FAILED]


@dataclass(frozen=True)
class Conclusion:
    """The answer of a study, for its page: a paragraph, warnings, figures and tables; `files` are written as well."""

    answer: str
    warnings: Sequence[str] = ()
    figures: Sequence[StudyFigure] = ()
    tables: Sequence[StudyTable] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """A study.

    `plan(context, rows)` returns all runs that are known, given the rows of those that ended, the failed ones among
    them: it is called again until it returns no new one, so that later runs may depend on the results of earlier ones.
    `quick` are the settings that `--quick` replaces where they were not given.
    """

    name: str
    question: str
    plan: Callable[[StudyContext, Sequence[Row]], list[StudyRun]]
    conclude: Callable[[StudyContext, Sequence[Row]], Conclusion]
    defaults: Mapping[str, Any]
    quick: Mapping[str, Any]
