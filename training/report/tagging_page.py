"""The page of a tagging run, in one file, and its summary in Markdown for the Prefect UI."""

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from store.fs.files import last_part
from store.tagging.statistics import (
    CHANGED_STATUSES,
    CONFIDENCE_BINS,
    Sample,
    TaggingStatistics,
    by_descending_count,
)
from store.tags.vocabulary.printable import mark_invisible
from training.report.dotted_names import flatten
from training.report.formatting import format_setting, make_environment

RunMode = Literal["dry-run", "write", "copy", "undo", "undo-dry-run"]
MAX_VISIBLE_GENRES = 40  # the rest of a long table is folded away
MAX_MARKDOWN_ROWS = 20  # rows of a table in the Prefect UI, beside which the page is a click away
STATUS_GROUPS = {  # in the order of the page
    "tagged": CHANGED_STATUSES,
    "left as they were": ("kept", "as-it-was"),
    "left, unsure": ("unsure",),
    "not possible": ("rejected", "skipped"),
}
REASON_TEXTS = {
    "not-applied": "it is not to be applied: its column apply is no",
    "album-disagrees": "alone it would get another genre than its album",
    "broken-link": "a link to nothing",
    "changed": "the file changed during the run",
    "checksum": "its content differs from the checksum of the catalogue",
    "damaged-journal": "its journal entry is damaged",
    "decoder-hung": "decoding took longer than the limit",
    "decoder-killed": "decoding it crashed the decoder",
    "decoder-out-of-memory": "decoding took more memory than the limit",
    "empty": "the file is empty",
    "incomplete": "the file of predictions lacks values that are needed to write it",
    "hard-linked": "it has several hard links; writing it would change or separate them",
    "has-genre": "it has a genre already",
    "imprecise-genre": "the likeliest genre cannot reach the wanted precision",
    "low-confidence": "no genre is probable enough",
    "mapped-to-nothing": "the genre map maps its genres to nothing",
    "missing": "the file is gone",
    "name-breaks-url": "its name contains characters that would split a URL",
    "name-not-utf-8": "its name is not UTF-8",
    "no-permission": "this user may not read or write it",
    "not-a-file": "a folder, pipe or device",
    "new-owner": "written; it now belongs to this user",
    "other-owner": "it belongs to another user, to whom a new file cannot be given",
    "not-listable": "a folder that this user may not list",
    "not-requested": "the likeliest genre is none of those requested",
    "not-audio": "not a known audio format",
    "outside-root": "it is a link to outside the source",
    "protected": "it has a genre that must never be changed",
    "read-only": "the file is read-only",
    "same-file": "it is another link to a file of this run",
    "silent": "it is silent",
    "too-long": "longer than the limit",
    "too-short": "shorter than the minimum",
    "truncated": "most of the audio is missing",
    "unsupported": "its format or tags cannot be written safely",
}


@dataclass(frozen=True)
class RunFacts:
    """What a page shows of a run beside the statistics of its files."""

    name: str
    mode: RunMode
    source: str  # the folder or catalogue, or the run that is undone
    seconds: float
    predictions: str  # the Parquet file with one row a file; the page lies beside it
    csv_url: str  # the same as CSV
    model: str = ""
    commands: Sequence[tuple[str, str]] = ()  # next steps: words that follow "to", and a command line
    notes: Sequence[str] = ()  # on how genres were selected, and on what was written
    genres: Sequence[str] = ()  # the names that the model and the map can give
    settings: Mapping[str, Any] = field(default_factory=dict)


class BarSegment(NamedTuple):
    """One stretch of the bar of all files."""

    name: str
    files: int
    start: float
    share: float


class UnchangedGroup(NamedTuple):
    """Files of one status and reason, with examples."""

    status: str
    reason: str
    meaning: str
    files: int
    examples: list[Sample]


class Bar(NamedTuple):
    """One bin of the histogram of confidences."""

    bin_index: int
    label: str
    changed_height: float  # heights, as shares of the highest bar
    unchanged_height: float


def render_page(statistics: TaggingStatistics, facts: RunFacts) -> bytes:
    """Return a run as one HTML page without scripts or external resources."""
    environment = make_environment(lambda value: mark_invisible(value) if type(value) is str else value)
    environment.filters["format_genres"] = format_genres
    page = environment.get_template("tagging_page.html.j2").render(
        facts=facts,
        statistics=statistics,
        headline=headline(statistics, facts),
        lede=lede(statistics, facts),
        bar_segments=bar_segments(statistics),
        describe_duration=describe_duration(statistics, facts),
        genres=by_descending_count(statistics.genres),
        max_visible_genres=MAX_VISIBLE_GENRES,
        bars=bars(statistics),
        bins=CONFIDENCE_BINS,
        max_bar_files=max_bar_files(statistics),
        changes=sorted(statistics.changes, key=lambda sample: sample.track_id),
        unchanged_groups=list(unchanged_groups(statistics)),
        is_dry_run=is_dry_run(facts),
        is_undo=is_undo(facts),
        settings={
            name: format_setting(value)
            for name, value in flatten(facts.settings)
            if value not in (None, "", (), [])
        },
        file_name=last_part,
    )
    return page.encode()


def markdown_summary(statistics: TaggingStatistics, facts: RunFacts) -> str:
    """Return the page's main parts in Markdown; names of files and genres are escaped."""
    files = [
        [
            sample.track_id,
            format_genres(sample.old_genres),
            format_genres(sample.new_genres),
            format_confidence(sample),
        ]
        for sample in statistics.changes
    ]
    genres = [[genre, f"{count:,}"] for genre, count in by_descending_count(statistics.genres)]
    left = [
        [group.status, group.reason, f"{group.files:,}", group.meaning]
        for group in unchanged_groups(statistics)
    ]
    blocks = [
        f"# {headline(statistics, facts)}",
        lede(statistics, facts),
        describe_duration(statistics, facts),
        *(
            f"To {escape_markdown(purpose)}:\n\n    {' '.join(command.splitlines())}"
            for purpose, command in facts.commands
        ),
        *_table("Files by genre", ["genre", "files"], genres),
        *_table("Files that stay as they are", ["status", "reason", "files", "why"], left),
        *_table("Some of the files", ["file", "had", "gets", "confidence"], sorted(files)),
        *(escape_markdown(note) for note in facts.notes),
        f"Every file: {escape_markdown(facts.predictions)} and {escape_markdown(facts.csv_url)}",
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def headline(statistics: TaggingStatistics, facts: RunFacts) -> str:
    """Return the result in one line."""
    match facts.mode:
        case "dry-run":
            one, several = "would be tagged", "would be tagged"
        case "write":
            one, several = "was tagged", "were tagged"
        case "copy":
            one, several = "was copied and tagged", "were copied and tagged"
        case "undo":
            one, several = "has its old tags back", "have their old tags back"
        case "undo-dry-run":
            one, several = "would get its old tags back", "would get their old tags back"
    if not statistics.files:
        return "No file was found"
    if statistics.files == 1:
        return f"{'The' if statistics.changed else 'No'} file {one}"
    count = f"{statistics.changed:,}" if statistics.changed else "None"
    return f"{count} of {statistics.files:,} files {one if statistics.changed == 1 else several}"


def lede(statistics: TaggingStatistics, facts: RunFacts) -> str:
    """Return what that means for the files."""
    if is_dry_run(facts):
        return "Nothing was written: this was a dry run."
    match facts.mode:
        case "copy":
            return "The files themselves are unchanged; each copy was compared with its file."
        case "undo":
            return "Restored files are as before the run, byte for byte unless they were changed since."
    if not statistics.changed:
        return "No file was changed."
    others = " No other file was changed." if statistics.changed < statistics.files else ""
    return f"Audio and all other tags were compared before each file was replaced.{others}"


def describe_duration(statistics: TaggingStatistics, facts: RunFacts) -> str:
    """Return number of files, duration and speed in words."""
    hours, rest = divmod(round(facts.seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    time = (
        f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    )
    speed = f", {statistics.files / facts.seconds:,.1f} files/s" if facts.seconds >= 1 else ""
    return f"{statistics.files:,} {'file' if statistics.files == 1 else 'files'} in {time}{speed}"


def bar_segments(statistics: TaggingStatistics) -> list[BarSegment]:
    """Return the segments of the bar of all files; an unknown status counts as not possible."""
    known = {status for statuses in STATUS_GROUPS.values() for status in statuses}
    counts = {
        name: sum(statistics.statuses.get(status, 0) for status in statuses)
        for name, statuses in STATUS_GROUPS.items()
    }
    counts["not possible"] += sum(
        count for status, count in statistics.statuses.items() if status not in known
    )
    found, start = [], 0.0
    for name, count in counts.items():
        share = count / max(statistics.files, 1)
        found.append(BarSegment(name, count, start, share))
        start += share
    return found


def bars(statistics: TaggingStatistics) -> list[Bar]:
    """Return the bars of the histogram of confidences: tagged files, and above them the others."""
    most = max(max_bar_files(statistics), 1)
    width = 100 // CONFIDENCE_BINS
    return [
        Bar(
            bin_index,
            f"{bin_index * width} to {(bin_index + 1) * width} %: {sure:,} tagged, {unsure:,} left",
            sure / most,
            unsure / most,
        )
        for bin_index, (sure, unsure) in enumerate(
            zip(statistics.changed_confidences, statistics.unchanged_confidences, strict=True)
        )
    ]


def max_bar_files(statistics: TaggingStatistics) -> int:
    """Return the number of files of the highest bar."""
    return max(map(sum, zip(statistics.changed_confidences, statistics.unchanged_confidences, strict=True)))


def unchanged_groups(statistics: TaggingStatistics) -> Iterator[UnchangedGroup]:
    """Yield the files that stay as they are by status and reason, most frequent first; those without a reason last."""
    for status, count in by_descending_count(statistics.statuses):
        if status in CHANGED_STATUSES:
            continue
        reasons = statistics.reasons.get(status, {})
        rest = count - sum(reasons.values())
        for reason, files in [*by_descending_count(reasons), *([("", rest)] if rest else [])]:
            examples = [
                sample
                for sample in statistics.unchanged_samples
                if (sample.status, sample.reason) == (status, reason)
            ]
            yield UnchangedGroup(status, reason, REASON_TEXTS.get(reason, ""), files, examples)


def is_dry_run(facts: RunFacts) -> bool:
    """Return whether nothing was written."""
    return facts.mode in ("dry-run", "undo-dry-run")


def is_undo(facts: RunFacts) -> bool:
    """Return whether old tags were restored."""
    return facts.mode in ("undo", "undo-dry-run")


def format_genres(genres: Sequence[str] | None) -> str:
    """Return genres as text."""
    return " + ".join(genres or ())


def format_confidence(sample: Sample) -> str:
    """Return a sample's confidence as text."""
    return "" if sample.confidence is None else f"{sample.confidence:.2f}"


def escape_markdown(text: str) -> str:
    """Escape text for Markdown, and for the HTML made from it, on one line."""
    # Not as character references, which Prefect's UI shows literally.
    return "".join(
        f"\\{sign}" if sign in string.punctuation and sign not in ",/" else sign
        for sign in mark_invisible(" ".join(text.split()))
    )


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    lines = [
        columns,
        ["---"] * len(columns),
        *([escape_markdown(cell) for cell in row] for row in rows[:MAX_MARKDOWN_ROWS]),
    ]
    more = f"and {len(rows) - MAX_MARKDOWN_ROWS:,} more" if len(rows) > MAX_MARKDOWN_ROWS else ""
    return [f"## {title}", "\n".join(f"| {' | '.join(line)} |" for line in lines), more]
