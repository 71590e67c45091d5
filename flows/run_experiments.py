"""Run a study: all its runs, a row of results.csv each, and a page that answers its question."""

import time
from collections.abc import Sequence
from functools import partial
from importlib import import_module

from pydantic import BaseModel

from flows.checks import check_experiment
from flows.cluster.client import Cluster, open_cluster
from flows.reporting.artifacts import show_image, show_markdown, show_table
from flows.reporting.progress import print_status, showing_progress
from flows.reporting.stage import stage
from flows.study_runs.execution import execute_runs, fit_to_memory
from flows.study_runs.ledger import (
    RESULTS_FILE,
    check_folder,
    claim_folder,
    read_rows,
    record_row,
    write_results,
)
from flows.study_runs.settings import ExperimentSettings
from flows.study_runs.study import FAILED, Conclusion, Row, Study, StudyContext, StudyRun, finished
from store.errors import BadInput
from store.fs.files import absolute, join, write_atomic
from store.reader import open_snapshot
from training.report.study_page import PAGE_FILE, StudyPage, render_study_page


class StudySummary(BaseModel, frozen=True):
    """The result of a study."""

    study: str
    folder: str
    runs: int
    failed: int
    answer: str
    warnings: list[str]
    seconds: float

    def lines(self) -> list[str]:
        """Return the lines for a terminal."""
        failed = f", {self.failed} failed (see the column error)" if self.failed else ""
        return [
            f"{self.study}: {self.runs} runs{failed}; {self.seconds:.0f} s",
            self.answer,
            *self.warnings,
            f"results: {self.folder}/{RESULTS_FILE}, {PAGE_FILE}",
        ]


def run_experiments(settings: ExperimentSettings) -> StudySummary:
    """Run a study. Run it again to resume it: rows that are done are not done again."""
    check_experiment(settings)
    started = time.monotonic()
    study = load_study(settings)
    with open_cluster(fit_to_memory(settings.cluster)) as cluster:
        context = open_study(study, settings, cluster)
        rows = run_all(study, context)
        conclusion = study.conclude(context, finished(rows))
    return publish(study, context, rows, conclusion, seconds=time.monotonic() - started)


def load_study(settings: ExperimentSettings) -> Study:
    """Import the definition of a study."""
    study: Study = import_module(f"flows.studies.{settings.study}").STUDY
    return study


def open_study(study: Study, settings: ExperimentSettings, cluster: Cluster) -> StudyContext:
    """Return the context of a study, with its own choice of what was not given."""
    name = f"{study.name}-quick" if settings.quick else study.name
    folder = join(absolute(settings.results), name)
    return StudyContext(settings, fill_in(settings, study), open_snapshot(settings.store), folder, cluster)


def fill_in(settings: ExperimentSettings, study: Study) -> ExperimentSettings:
    """Replace the settings that are at their defaults by the study's own choice, and by that of `--quick`."""
    chosen = {**study.defaults, **(study.quick if settings.quick else {})}
    usual = ExperimentSettings(study=settings.study)
    merged = settings.model_dump()
    training = chosen.pop("training", {})
    for given, default, own in (
        (merged, usual.model_dump(), chosen),
        (merged["training"], usual.training.model_dump(), training),
    ):
        given |= {name: value for name, value in own.items() if given[name] == default[name]}
    return ExperimentSettings.model_validate(merged)


def run_all(study: Study, context: StudyContext) -> list[Row]:
    """Run what is planned and not done, and what is planned from these results, until nothing is left.

    Raises: BadInput if the study cannot be planned, or its folder holds runs of other settings.
    """
    check_folder(context)
    rows: dict[str, Row] = {}
    while True:
        planned = study.plan(context, list(rows.values()))
        claim_folder(context)  # only now: a plan that is refused leaves no trace
        earlier = {name: row for name, row in read_rows(context, planned).items() if name not in rows}
        if earlier:
            rows |= earlier  # and plan again: more may follow from them
            continue
        pending = choose_pending(planned, rows, context.settings.only)
        if pending:
            run_pending(context, planned, pending, rows)
        if not pending or context.settings.only:
            return ordered(planned, rows)


def choose_pending(planned: Sequence[StudyRun], rows: dict[str, Row], only: str) -> list[StudyRun]:
    """Return the runs to do: those without a row, or the one that is asked for.

    Raises: BadInput if there is no such run.
    """
    if not only:
        return [run for run in planned if run.name not in rows]
    named = [run for run in planned if run.name == only]
    if not named:
        raise BadInput(f"--only {only}: this study has no such run; its column run in results.csv names them")
    return named


@stage
def run_pending(
    context: StudyContext, planned: Sequence[StudyRun], pending: list[StudyRun], rows: dict[str, Row]
) -> None:
    """Run the pending runs on the cluster; write a row and all rows so far after each."""
    with showing_progress(f"Study {context.settings.study}", len(pending), "runs") as advance:
        for run, outcome in execute_runs(context.cluster, pending):
            rows[run.name] = record_row(context, run, outcome)
            write_results(context, ordered(planned, rows))
            if outcome.error:
                print_status(f"run {run.name} failed: {outcome.error}")
            advance(1, "")


def ordered(planned: Sequence[StudyRun], rows: dict[str, Row]) -> list[Row]:
    """Return the rows in the order of the plan."""
    return [rows[run.name] for run in planned if run.name in rows]


def publish(
    study: Study, context: StudyContext, rows: list[Row], conclusion: Conclusion, *, seconds: float
) -> StudySummary:
    """Write results.csv, the page and the files of the study; show them in the Prefect UI."""
    columns = write_results(context, rows)
    page = StudyPage(
        study=study.name,
        question=study.question,
        answer=conclusion.answer,
        warnings=conclusion.warnings,
        figures=conclusion.figures,
        tables=conclusion.tables,
        columns=columns,
        rows=rows,
        settings=context.settings.model_dump(mode="json"),
        files=(RESULTS_FILE, *sorted(conclusion.files)),
    )
    files = {**conclusion.files, **render_study_page(page)}
    for name, content in files.items():
        write_atomic(join(context.folder, name), content)
    for figure in conclusion.figures:
        show_image(
            f"study-{study.name}-{figure.name}",
            partial(files.__getitem__, f"{figure.name}.png"),
            figure.caption,
        )
    show_table(f"study-{study.name}", rows, conclusion.answer)
    show_markdown(f"study-{study.name}-answer", "\n\n".join([conclusion.answer, *conclusion.warnings]))
    return StudySummary(
        study=study.name,
        folder=context.folder,
        runs=len(rows),
        failed=sum(row["status"] == FAILED for row in rows),
        answer=conclusion.answer,
        warnings=list(conclusion.warnings),
        seconds=seconds,
    )
