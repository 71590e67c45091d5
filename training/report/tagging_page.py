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

Way = Literal["dry-run", "write", "copy", "undo", "undo-dry-run"]
FIRST_GENRES = 40  # the rest of a long table is folded away
IN_MARKDOWN = 20  # rows of a table in the Prefect UI, beside which the page is a click away
BY_ITS_STATUS = {  # what became of a file, in the order of the page
    "tagged": CHANGED_STATUSES,
    "left as they were": ("kept", "as-it-was"),
    "left, unsure": ("unsure",),
    "not possible": ("rejected", "skipped", "failed"),
}
MEANINGS = {
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
    "not-asked-for": "the likeliest genre is none of those asked for",
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
    way: Way
    source: str  # what was listened to, or the run that is undone
    seconds: float
    predictions: str  # where the Parquet file with a row a file is; the page lies beside it
    table: str  # the same as CSV
    model: str = ""
    commands: Sequence[tuple[str, str]] = ()  # what can be done next: words that follow "to", command line
    notes: Sequence[str] = ()  # what a person should know of how answers were made
    settings: Mapping[str, Any] = field(default_factory=dict)


# Control characters, and those that turn the direction of text round, which hides what a name ends in.
UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Part(NamedTuple):
    """One stretch of the bar of all files."""

    name: str
    files: int
    start: float
    share: float


class End(NamedTuple):
    """How some files ended, with examples."""

    status: str
    reason: str
    meaning: str
    files: int
    examples: list[Sample]


class Bar(NamedTuple):
    """One bin of the histogram of confidences."""

    place: int
    says: str
    sure: float  # heights, as shares of the highest bar
    unsure: float


def render_page(tally: TaggingStatistics, facts: RunFacts) -> bytes:
    """Lay a run out as one HTML page without scripts, which asks for nothing outside."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: seen(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "listed": listed}
    page = environment.get_template("tagging_page.html.j2").render(
        facts=facts,
        tally=tally,
        headline=headline(tally, facts),
        lede=lede(tally, facts),
        parts=parts(tally),
        took=took(tally, facts),
        genres=by_descending_count(tally.genres),
        first_genres=FIRST_GENRES,
        bars=bars(tally),
        bins=CONFIDENCE_BINS,
        most_in_a_bar=most_in_a_bar(tally),
        changes=sorted(tally.changes, key=lambda sample: sample.track_id),
        ends=list(ends(tally)),
        is_dry=is_dry(facts),
        is_undo=is_undo(facts),
        settings={
            name: listed(value) for name, value in flatten(facts.settings) if value not in (None, "", (), [])
        },
        file_name=lambda url: url.rsplit("/", 1)[-1],
    )
    return page.encode()


def markdown_summary(tally: TaggingStatistics, facts: RunFacts) -> str:
    """Tell the same in Markdown. Names of files and genres are other people's: they stay text."""
    files = [
        [sample.track_id, listed(sample.old_genres), listed(sample.new_genres), sure(sample)]
        for sample in tally.changes
    ]
    genres = [[genre, f"{count:,}"] for genre, count in by_descending_count(tally.genres)]
    left = [[end.status, end.reason, f"{end.files:,}", end.meaning] for end in ends(tally)]
    blocks = [
        f"# {headline(tally, facts)}",
        lede(tally, facts),
        took(tally, facts),
        *(f"To {plain(says)}:\n\n    {' '.join(command.splitlines())}" for says, command in facts.commands),
        *_table("Files by genre", ["genre", "files"], genres),
        *_table("Files that stay as they are", ["status", "reason", "files", "why"], left),
        *_table("Some of the files", ["file", "had", "gets", "confidence"], sorted(files)),
        *(plain(note) for note in facts.notes),
        f"Every file: {plain(facts.predictions)} and {plain(facts.table)}",
    ]
    return "\n\n".join(filter(None, blocks)) + "\n"


def headline(tally: TaggingStatistics, facts: RunFacts) -> str:
    """Put what happened in one line."""
    match facts.way:
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
    if is_dry(facts):
        return "Nothing was written: this was a dry run."
    match facts.way:
        case "copy":
            return "The files themselves are as they were; each copy was compared with its file."
        case "undo":
            return "What was put back is as it was before, byte for byte where nobody changed the file since."
    if not tally.changed:
        return "No file was touched."
    untouched = " No other file was touched." if tally.changed < tally.files else ""
    return f"Audio and all other tags were compared before each file was swapped in.{untouched}"


def took(tally: TaggingStatistics, facts: RunFacts) -> str:
    """Say how long it took, and how fast that was."""
    hours, rest = divmod(round(facts.seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    time = (
        f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    )
    speed = f", {tally.files / facts.seconds:,.1f} files/s" if facts.seconds >= 1 else ""
    return f"{tally.files:,} {'file' if tally.files == 1 else 'files'} in {time}{speed}"


def parts(tally: TaggingStatistics) -> list[Part]:
    """Cut the bar of all files by how they ended; a status that is not known is not possible."""
    known = {status for statuses in BY_ITS_STATUS.values() for status in statuses}
    counts = {
        name: sum(tally.statuses.get(status, 0) for status in statuses)
        for name, statuses in BY_ITS_STATUS.items()
    }
    counts["not possible"] += sum(count for status, count in tally.statuses.items() if status not in known)
    found, start = [], 0.0
    for name, count in counts.items():
        share = count / max(tally.files, 1)
        found.append(Part(name, count, start, share))
        start += share
    return found


def bars(tally: TaggingStatistics) -> list[Bar]:
    """Lay out the histogram of confidences: files that get a genre, and above them those that do not."""
    most = max(most_in_a_bar(tally), 1)
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


def most_in_a_bar(tally: TaggingStatistics) -> int:
    """Count the files of the highest bar."""
    return max(map(sum, zip(tally.changed_confidences, tally.unchanged_confidences, strict=True)))


def ends(tally: TaggingStatistics) -> Iterator[End]:
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
            yield End(status, reason, MEANINGS.get(reason, ""), files, examples)


def is_dry(facts: RunFacts) -> bool:
    """Say whether nothing was written."""
    return facts.way in ("dry-run", "undo-dry-run")


def is_undo(facts: RunFacts) -> bool:
    """Say whether old tags were put back."""
    return facts.way in ("undo", "undo-dry-run")


def listed(value: Any) -> str:
    """Write a value for a person."""
    match value:
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return " + ".join(map(str, value))
        case _:
            return str(value)


def sure(sample: Sample) -> str:
    """Write a sample's confidence."""
    return "" if sample.confidence is None else f"{sample.confidence:.2f}"


def seen(text: str) -> str:
    """Show that there is something where text holds what nobody sees."""
    return UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text)


def plain(text: str) -> str:
    """Make text mean itself in Markdown, and in the HTML that is made of it, on one line."""
    # Not as character references, which Prefect's UI shows as they stand.
    return "".join(
        f"\\{sign}" if sign in string.punctuation and sign not in ",/" else sign
        for sign in seen(" ".join(text.split()))
    )


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    lines = [columns, ["---"] * len(columns), *([plain(cell) for cell in row] for row in rows[:IN_MARKDOWN])]
    more = f"and {len(rows) - IN_MARKDOWN:,} more" if len(rows) > IN_MARKDOWN else ""
    return [f"## {title}", "\n".join(f"| {' | '.join(line)} |" for line in lines), more]
