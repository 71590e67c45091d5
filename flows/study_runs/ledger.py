"""The rows of a study: one file a run, results.csv of all of them, and the settings they were made with."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from flows.study_runs.execution import RunOutcome
from flows.study_runs.settings import ExperimentSettings
from flows.study_runs.study import FAILED, Row, StudyContext, StudyRun
from store.errors import BadInput
from store.fs.csv_rows import to_csv
from store.fs.files import absolute, exists, join, read_bytes, write_atomic
from store.fs.parquet import write_table

SETTINGS_FILE, ROW_FILE, RESULTS_FILE = "study.json", "row.json", "results.csv"
NOT_DECISIVE = frozenset({"store", "results", "only", "cluster"})  # other values give the same rows
LAST_COLUMNS = ("seconds", "cpu_s", "status", "error", "command")


def check_folder(context: StudyContext) -> None:
    """Raise BadInput if the folder of a study holds runs of other settings."""
    url = join(context.folder, SETTINGS_FILE)
    if not exists(url):
        return
    found, wanted = _flat(json.loads(read_bytes(url))), _flat(_decisive(context))
    changed = [
        f"{name} {_short(found.get(name))} (now {_short(value)})"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    if changed:
        raise BadInput(
            f"{context.folder}: its runs were made with {', '.join(changed[:3])}; give the same settings to resume, "
            "or name another folder with --results"
        )


def claim_folder(context: StudyContext) -> None:
    """Write the settings of a study into its folder, which `check_folder` compares with."""
    write_atomic(join(context.folder, SETTINGS_FILE), json.dumps(_decisive(context), indent=1).encode())


def _decisive(context: StudyContext) -> dict[str, Any]:
    """Return all that decides the rows, as JSON has it."""
    settings = context.settings.model_dump(mode="json", exclude=set(NOT_DECISIVE))
    has_musicnn = context.settings.training.model.has_musicnn
    settings["training"]["model"]["musicnn"] = "musicnn" * has_musicnn  # wherever its wheel lies
    return {
        "snapshot": absolute(context.snapshot.url),
        "spectrograms": context.snapshot.mel_fingerprint,
        **settings,
    }


def read_rows(context: StudyContext, planned: Sequence[StudyRun]) -> dict[str, Row]:
    """Return the finished rows of planned runs, by the name of the run; failed ones are left out."""
    rows = {}
    for run in planned:
        url = join(context.run_folder(run.name), ROW_FILE)
        if exists(url):
            row: Row = json.loads(read_bytes(url))
            if row["status"] != FAILED:
                rows[run.name] = row
    return rows


def record_row(context: StudyContext, run: StudyRun, outcome: RunOutcome) -> Row:
    """Write the row of a run that ended, and its table before; return the row."""
    folder = context.run_folder(run.name)
    if outcome.result.table is not None:
        write_table(join(folder, "table.parquet"), outcome.result.table)
    row = {
        "run": run.name,
        "study": context.settings.study,
        **run.settings,
        **outcome.result.metrics,
        "seconds": outcome.seconds,
        "cpu_s": outcome.cpu_s,
        "status": outcome.result.status,
        "error": outcome.error,
        "command": repeating_command(context.asked, run.name),
    }
    write_atomic(join(folder, ROW_FILE), json.dumps(row).encode())
    return row


def write_results(context: StudyContext, rows: Sequence[Row]) -> list[str]:
    """Write results.csv; return its columns."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [name for name in names if name not in LAST_COLUMNS] + [
        it for it in LAST_COLUMNS if it in names
    ]
    write_atomic(join(context.folder, RESULTS_FILE), to_csv(columns, rows))
    return columns


def repeating_command(settings: ExperimentSettings, run: str) -> str:
    """Return the command line that repeats one run."""
    flags = _flags(settings.model_copy(update={"only": run}), type(settings)(study=settings.study))
    return " ".join(map(shlex.quote, ["spectrogram-one", "experiment", settings.study, *flags]))


def _flags(settings: BaseModel, default: BaseModel, prefix: str = "") -> list[str]:
    """Return the flags of the settings that differ from the defaults."""
    flags: list[str] = []
    for name in type(settings).model_fields:
        value, usual = getattr(settings, name), getattr(default, name)
        flag = f"--{prefix}{name.replace('_', '-')}"
        if value == usual or name == "study":
            continue
        match value:
            case BaseModel():
                flags += _flags(value, usual, f"{prefix}{name.replace('_', '-')}.")
            case bool():
                flags.append(flag if value else f"--{prefix}no-{name.replace('_', '-')}")
            case tuple():
                flags += [word for each in value for word in (flag, str(each))]
            case _:
                flags += [flag, str(value)]
    return flags


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def _short(value: Any) -> str:
    return (", ".join(map(str, value)) if isinstance(value, list) else str(value)) or "none"
