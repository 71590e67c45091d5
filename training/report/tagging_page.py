"""What a tagging run did, on one page that needs nothing else, and in short for the Prefect UI."""

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jinja2

from store.tagging.statistics import (
    CHANGED_STATUSES,
    CONFIDENCE_BINS,
    Sample,
    TaggingStatistics,
    by_descending_count,
)
from training.report.dotted_names import flatten
from training.report.page import percent

RunMode = Literal["dry-run", "write", "copy", "undo", "undo-dry-run"]
MAX_VISIBLE_GENRES = 40  # the rest of a long table is folded away
MAX_MARKDOWN_ROWS = 20  # rows of a table in the Prefect UI, beside which the page is a click away
STATUS_GROUPS = {  # what became of a file, in the order of the page
    "tagged": CHANGED_STATUSES,
    "left as they were": ("kept", "as-it-was"),
    "left, unsure": ("unsure",),
    "not possible": ("rejected", "skipped"),
}
REASON_TEXTS = {
    "broken-link": "a link to nothing",
    "changed": "somebody changed the file meanwhile",
    "checksum": "its content is not what the catalogue says",
    "damaged-journal": "what the journal says of it cannot be trusted",
    "decoder-hung": "decoding took longer than the limit",
    "decoder-killed": "decoding it killed the decoder",
    "decoder-out-of-memory": "decoding took more memory than the limit",
    "empty": "the file holds no byte",
    "incomplete": "the file of predictions lacks what it takes to write it",
    "hard-linked": "it has several names; writing it would change or part them",
    "has-genre": "it has a genre already",
    "imprecise-genre": "the likeliest genre cannot be told with the precision asked for",
    "low-confidence": "no genre is likely enough",
    "mapped-to-nothing": "the map says that its genres are never written",
    "missing": "the file is gone",
    "name-breaks-url": "its name holds signs that would part a URL",
    "name-not-utf-8": "its name is not UTF-8",
    "no-permission": "this user may not read or write it",
    "not-a-file": "a folder, pipe or device",
    "not-requested": "the likeliest genre is none of those asked for",
    "not-audio": "no audio that is known",
    "outside-root": "it leads out of the source",
    "protected": "it has a genre that is never to be touched",
    "read-only": "the file is read-only",
    "same-file": "it is another name of a file of this run",
    "silent": "there is nothing to hear",
    "too-long": "longer than the limit",
    "too-short": "too short to be listened to",
    "truncated": "most of the audio is missing",
    "unsupported": "its format or tags cannot be written safely",
}


@dataclass(frozen=True)
class RunFacts:
    """What a page says of a run beside the tally of its files."""

    name: str
    mode: RunMode
    source: str  # what was listened to, or the run that is undone
    seconds: float
    predictions: str  # where the Parquet file with a row a file is; the page lies beside it
    csv_url: str  # the same as CSV
    model: str = ""
    commands: Sequence[tuple[str, str]] = ()  # what can be done next: words that follow "to", command line
    notes: Sequence[str] = ()  # what a person should know of how answers were made
    settings: Mapping[str, Any] = field(default_factory=dict)


# Control characters, and those that turn the direction of text round, which hides what a name ends in.
INVISIBLE_CHARS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class BarSegment(NamedTuple):
    """One stretch of the bar of all files."""

    name: str
    files: int
    start: float
    share: float


class UnchangedGroup(NamedTuple):
    """How some files ended, with examples."""

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


def render_page(tally: TaggingStatistics, facts: RunFacts) -> bytes:
    """Lay a run out as one HTML page without scripts, which asks for nothing outside."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: mark_invisible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "format_value": format_value}
    page = environment.get_template("tagging_page.html.j2").render(
        facts=facts,
        tally=tally,
        headline=headline(tally, facts),
        lede=lede(tally, facts),
        bar_segments=bar_segments(tally),
        describe_duration=describe_duration(tally, facts),
        genres=by_descending_count(tally.genres),
        max_visible_genres=MAX_VISIBLE_GENRES,
        bars=bars(tally),
        bins=CONFIDENCE_BINS,
        max_bar_files=max_bar_files(tally),
        changes=sorted(tally.changes, key=lambda sample: sample.track_id),
        unchanged_groups=list(unchanged_groups(tally)),
        is_dry_run=is_dry_run(facts),
        is_undo=is_undo(facts),
        settings={
            name: format_value(value)
            for name, value in flatten(facts.settings)
            if value not in (None, "", (), [])
        },
        file_name=lambda url: url.rsplit("/", 1)[-1],
    )
    return page.encode()


def markdown_summary(tally: TaggingStatistics, facts: RunFacts) -> str:
    """Tell the same in Markdown. Names of files and genres are other people's: they stay text."""
    files = [
        [
            sample.track_id,
            format_value(sample.old_genres),
            format_value(sample.new_genres),
            format_confidence(sample),
        ]
        for sample in tally.changes
    ]
    genres = [[genre, f"{count:,}"] for genre, count in by_descending_count(tally.genres)]
    left = [[end.status, end.reason, f"{end.files:,}", end.meaning] for end in unchanged_groups(tally)]
    blocks = [
        f"# {headline(tally, facts)}",
        lede(tally, facts),
        describe_duration(tally, facts),
        *(
            f"To {escape_markdown(says)}:\n\n    {' '.join(command.splitlines())}"
            for says, command in facts.commands
        ),
        *_table("Files by genre", ["genre", "files"], genres),
        *_table("Files that stay as they are", ["status", "reason", "files", "why"], left),
        *_table("Some of the files", ["file", "old_genres", "new_genres", "confidence"], sorted(files)),
        *(escape_markdown(note) for note in facts.notes),
        f"Every file: {escape_markdown(facts.predictions)} and {escape_markdown(facts.csv_url)}",
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def headline(tally: TaggingStatistics, facts: RunFacts) -> str:
    """Put what happened in one line."""
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
    if not tally.files:
        return "No file was found"
    if tally.files == 1:
        return f"{'The' if tally.changed else 'No'} file {one}"
    count = f"{tally.changed:,}" if tally.changed else "None"
    return f"{count} of {tally.files:,} files {one if tally.changed == 1 else several}"


def lede(tally: TaggingStatistics, facts: RunFacts) -> str:
    """Say what that means for the files."""
    if is_dry_run(facts):
        return "Nothing was written: this was a dry run."
    match facts.mode:
        case "copy":
            return "The files themselves are as they were; each copy was compared with its file."
        case "undo":
            return "What was put back is as it was before, byte for byte where nobody changed the file since."
    if not tally.changed:
        return "No file was touched."
    untouched = " No other file was touched." if tally.changed < tally.files else ""
    return f"Audio and all other tags were compared before each file was swapped in.{untouched}"


def describe_duration(tally: TaggingStatistics, facts: RunFacts) -> str:
    """Say how long it took, and how fast that was."""
    hours, rest = divmod(round(facts.seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    time = (
        f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    )
    speed = f", {tally.files / facts.seconds:,.1f} files/s" if facts.seconds >= 1 else ""
    return f"{tally.files:,} {'file' if tally.files == 1 else 'files'} in {time}{speed}"


def bar_segments(tally: TaggingStatistics) -> list[BarSegment]:
    """Cut the bar of all files by how they ended; a status that is not known is not possible."""
    known = {status for statuses in STATUS_GROUPS.values() for status in statuses}
    counts = {
        name: sum(tally.statuses.get(status, 0) for status in statuses)
        for name, statuses in STATUS_GROUPS.items()
    }
    counts["not possible"] += sum(count for status, count in tally.statuses.items() if status not in known)
    found, start = [], 0.0
    for name, count in counts.items():
        share = count / max(tally.files, 1)
        found.append(BarSegment(name, count, start, share))
        start += share
    return found


def bars(tally: TaggingStatistics) -> list[Bar]:
    """Lay out the histogram of confidences: files that get a genre, and above them those that do not."""
    most = max(max_bar_files(tally), 1)
    width = 100 // CONFIDENCE_BINS
    return [
        Bar(
            place,
            f"{place * width} to {(place + 1) * width} %: {sure:,} tagged, {unsure:,} left",
            sure / most,
            unsure / most,
        )
        for place, (sure, unsure) in enumerate(
            zip(tally.changed_confidences, tally.unchanged_confidences, strict=True)
        )
    ]


def max_bar_files(tally: TaggingStatistics) -> int:
    """Count the files of the highest bar."""
    return max(map(sum, zip(tally.changed_confidences, tally.unchanged_confidences, strict=True)))


def unchanged_groups(tally: TaggingStatistics) -> Iterator[UnchangedGroup]:
    """List how files ended that stay as they are, most first; those without a reason last of their status."""
    for status, count in by_descending_count(tally.statuses):
        if status in CHANGED_STATUSES:
            continue
        reasons = tally.reasons.get(status, {})
        rest = count - sum(reasons.values())
        for reason, files in [*by_descending_count(reasons), *([("", rest)] if rest else [])]:
            examples = [
                sample
                for sample in tally.unchanged_samples
                if (sample.status, sample.reason) == (status, reason)
            ]
            yield UnchangedGroup(status, reason, REASON_TEXTS.get(reason, ""), files, examples)


def is_dry_run(facts: RunFacts) -> bool:
    """Say whether nothing was written."""
    return facts.mode in ("dry-run", "undo-dry-run")


def is_undo(facts: RunFacts) -> bool:
    """Say whether old tags were put back."""
    return facts.mode in ("undo", "undo-dry-run")


def format_value(value: Any) -> str:
    """Write a value for a person."""
    match value:
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return " + ".join(map(str, value))
        case _:
            return str(value)


def format_confidence(sample: Sample) -> str:
    """Write a sample's confidence."""
    return "" if sample.confidence is None else f"{sample.confidence:.2f}"


def mark_invisible(text: str) -> str:
    """Show that there is something where text holds what nobody sees."""
    return INVISIBLE_CHARS.sub("\N{REPLACEMENT CHARACTER}", text)


def escape_markdown(text: str) -> str:
    """Make text mean itself in Markdown, and in the HTML that is made of it, on one line."""
    # Not as character references, which Prefect's UI shows as they stand.
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
