"""The summary of a tagging run: in the terminal, in files, on a page, and in the Prefect UI."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
from pydantic import BaseModel, Field
from rich.table import Table

from flows.reporting.artifacts import show_markdown
from flows.reporting.stage import stage
from preprocessing.catalogue.source_counts import SourceCounts
from store.fs.files import join, write_atomic
from store.tagging.predictions import write_predictions
from store.tagging.run import Folder, TaggingRun
from store.tagging.statistics import Sample, TaggingStatistics, by_descending_count, count_rows
from store.tags.vocabulary.printable import mark_invisible
from store.tags.vocabulary.spelling import is_split_by_servers, without_separators
from training.report.tagging_page import RunFacts, markdown_summary, render_page

MAX_PRINTED_CHANGES = 20  # in the terminal; the page shows more, the CSV all
MAX_PRINTED_UNCHANGED = 20
WRITTEN_STATUSES = ("written", "restored", "restored-tags")
EMPTY_CELLS = {"had": "(none)", "gets": "(none)"}
UNNOTICED = (
    "the files keep their modification times, and often their sizes: media servers that look for changes by time or "
    "size will not notice; to make them, start the server's full rescan (replace or refresh all metadata)"
)


class TagSummary(BaseModel, frozen=True):
    """The results of a run, or of a dry run."""

    run: str = Field(description="The name of the run, by which it is undone")
    source: str
    model: str
    dry_run: bool
    statuses: dict[str, int] = Field(description="Number of files by status")
    reasons: dict[str, dict[str, int]] = Field(description="Number of files by reason, for each status")
    genres: dict[str, int] = Field(description="Number of files that get each genre")
    changes: list[dict[str, str]] = Field(description="Some files with the genres they get")
    disagreements: list[dict[str, str]] = Field(
        description="Some tracks that get the genres of their album, and would get others alone"
    )
    unchanged: list[dict[str, str]] = Field(description="Some files that stay unchanged, and why")
    notes: list[str] = Field(
        description="The precision that was reached, and the genres that are never assigned"
    )
    commands: list[tuple[str, str]] = Field(description="Next steps: in words, and as a command line")
    predictions: str = Field(description="Parquet file with a row per file")
    csv: str = Field(description="The same as CSV")
    page: str = Field(description="HTML page of the run")
    seconds: float

    def lines(self) -> list[str]:
        """Return the lines for a terminal."""
        counts = ", ".join(f"{count:,} {status}" for status, count in by_descending_count(self.statuses))
        by = f"{self.model}, " if self.model else ""
        lines = [f"{mark_invisible(self.source)}: {counts} ({by}{self.seconds:.0f} s)", *self.notes]
        lines += [f"all files: {self.csv} and {self.predictions}", f"page: {self.page}"]
        if self.dry_run:
            lines.append("nothing was written")
        return [*lines, *(f"to {purpose}: {command}" for purpose, command in self.commands)]

    def tables(self) -> Iterator[Table]:
        """Return the tables for a terminal: genres, some changes, some unchanged files."""
        if self.genres:
            table = Table("genre", "files that get it")
            for genre, count in self.genres.items():
                table.add_row(genre, f"{count:,}")
            yield table
        for title, rows, most in (
            ("some of the changes", self.changes, MAX_PRINTED_CHANGES),
            ("tracks that disagree with their album", self.disagreements, MAX_PRINTED_CHANGES),
            ("some of the unchanged files", self.unchanged, MAX_PRINTED_UNCHANGED),
        ):
            if rows:
                columns = list(dict.fromkeys(name for row in rows for name in row))
                table = Table(*columns, title=title)
                for row in rows[:most]:
                    table.add_row(*(row.get(name) or EMPTY_CELLS.get(name, "") for name in columns))
                yield table


@stage
def summarise_tagging(
    run: TaggingRun, folder: Folder, parts: Sequence[str], facts: RunFacts, *, exclude: Sequence[str] = ()
) -> TagSummary:
    """Merge the parts of a run into its files, its page and its artifact, and mark the run as finished."""
    statistics = TaggingStatistics()

    def tables() -> Iterator[pa.Table]:
        nonlocal statistics
        for table in run.tables(folder, parts):
            statistics += count_rows(table)
            yield table

    metadata = {"source": facts.source, "model": facts.model, "run": run.name}
    if facts.genres:
        metadata["genres"] = json.dumps(list(facts.genres), ensure_ascii=False)
    write_predictions(facts.predictions, facts.csv_url, tables(), metadata)
    facts = replace(
        facts,
        notes=[
            *facts.notes,
            *_policy_notes(statistics, facts),
            *_split_name_notes(statistics, facts),
            *_source_lines(run, statistics, exclude),
            *_write_lines(statistics, facts),
        ],
        commands=facts.commands if statistics.changed else (),
    )
    page = join(run.url, "summary.html")
    write_atomic(page, render_page(statistics, facts))
    show_markdown("tagging-summary", markdown_summary(statistics, facts))
    summary = _summary(run.name, statistics, facts, page)
    run.finish(summary.model_dump())
    return summary


def _summary(run: str, statistics: TaggingStatistics, facts: RunFacts, page: str) -> TagSummary:
    return TagSummary(
        run=run,
        source=facts.source,
        model=facts.model,
        dry_run=facts.mode in ("dry-run", "undo-dry-run"),
        statuses=dict(statistics.statuses),
        reasons={status: dict(reasons) for status, reasons in statistics.reasons.items()},
        genres=dict(by_descending_count(statistics.genres)),
        changes=[_change(sample) for sample in statistics.changes],
        disagreements=[_disagreement(sample) for sample in statistics.disagreements],
        unchanged=[_unchanged(sample) for sample in statistics.unchanged_samples],
        notes=list(facts.notes),
        commands=list(facts.commands),
        predictions=facts.predictions,
        csv=facts.csv_url,
        page=page,
        seconds=facts.seconds,
    )


def _policy_notes(statistics: TaggingStatistics, facts: RunFacts) -> list[str]:
    """Return, after a dry run, the flag that includes the files which have a genre already; none if there are none."""
    files = statistics.reasons.get("kept", {}).get("has-genre", 0)
    if not files or facts.mode != "dry-run" or facts.settings.get("policy", {}).get("policy") != "fill":
        return []
    return [
        f"{files:,} files have a genre already and keep it; --policy append adds to their genres, --policy replace "
        "replaces them"
    ]


def _split_name_notes(statistics: TaggingStatistics, facts: RunFacts) -> list[str]:
    """Return a warning for each genre in which media servers read several, with the line of a map that avoids it."""
    if facts.mode.startswith("undo"):
        return []
    return [
        f"media servers split {name!r} into several genres; to avoid it, put this line under [genres] in the file of "
        f"--genre-map: {json.dumps(name, ensure_ascii=False)} = "
        f"{json.dumps(without_separators(name), ensure_ascii=False)}"
        for name in statistics.genres
        if is_split_by_servers(name)
    ]


def _source_lines(run: TaggingRun, statistics: TaggingStatistics, exclude: Sequence[str]) -> list[str]:
    """Return the account of all files of the source; none for a plan that was read from a file."""
    found = run.source_counts()
    if found is None:
        return []
    counts = SourceCounts(**found)
    statuses = dict(statistics.statuses)
    # A row stands for these as well, with the status skipped.
    statuses["skipped"] = statuses.get("skipped", 0) - sum(counts.unusable.values())
    return counts.lines(dict(by_descending_count(statuses)), exclude)


def _write_lines(statistics: TaggingStatistics, facts: RunFacts) -> list[str]:
    """Return what to know after files were written: that media servers may not notice, and new owners."""
    written = sum(statistics.statuses.get(status, 0) for status in WRITTEN_STATUSES)
    if not written or facts.mode not in ("write", "undo"):
        return []
    lines = []
    new_owners = sum(reasons.get("new-owner", 0) for reasons in statistics.reasons.values())
    if new_owners:
        lines.append(
            f"{new_owners:,} files now belong to this user; the column detail names their old owners"
        )
    if facts.settings.get("writing", {}).get("mtime") == "now" and facts.mode == "write":
        return lines
    return [*lines, UNNOTICED + (", or write with --mtime now" if facts.mode == "write" else "")]


def _change(sample: Sample) -> dict[str, str]:
    confidence = {} if sample.confidence is None else {"confidence": _share(sample.confidence)}
    return {
        "file": mark_invisible(sample.track_id),
        "had": mark_invisible("; ".join(sample.old_genres)),
        "gets": mark_invisible("; ".join(sample.new_genres)),
        **confidence,
        "status": sample.status,
    }


def _disagreement(sample: Sample) -> dict[str, str]:
    return {
        "file": mark_invisible(sample.track_id),
        "gets": mark_invisible("; ".join(sample.new_genres)),
        "detail": mark_invisible(sample.detail),
    }


def _unchanged(sample: Sample) -> dict[str, str]:
    status = f"{sample.status}: {sample.reason}" if sample.reason else sample.status
    return {
        "file": mark_invisible(sample.track_id),
        "status": status,
        "detail": mark_invisible(sample.detail),
    }


def _share(confidence: float | None) -> str:
    return "" if confidence is None else f"{confidence:.2f}"
