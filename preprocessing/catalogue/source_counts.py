"""The account of a source: each entry that a walk meets is counted once, by what became of it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from store.fs.disk_errors import printable

MAX_NAMED = 10  # unusable entries that are named
MAX_SUFFIXES = 100  # that are counted apart: a folder may hold files named .0001 to .9999
MAX_PRINTED_SUFFIXES = 8
SUFFIX = re.compile(r"(?<=[^/])\.\w{1,10}$")
NO_SUFFIX, OTHER_SUFFIXES = "no suffix", "others"
PROBLEM_TEXTS = {
    "not-listable": "not listable",
    "name-not-utf-8": "with a name that is not UTF-8",
    "name-breaks-url": "with '::' in the name, which splits a URL",
}

REMEDIES = {
    "not-listable": "give this user the permission to list it",
    "name-not-utf-8": "rename it (convmv does so for whole folders)",
    "name-breaks-url": "rename it",
}


@dataclass
class SourceCounts:
    """The number of files of a source by what became of them; of bounded size.

    A folder that may not be listed, or is not entered, counts as one file.
    """

    audio: int = 0  # listed, whatever becomes of them
    unusable: dict[str, int] = field(default_factory=dict)  # listed or left out, by problem
    not_audio: dict[str, int] = field(default_factory=dict)  # by suffix
    excluded: dict[str, int] = field(default_factory=dict)  # by rule
    links: int = 0  # to files or folders that are listed under another path
    vanished: int = 0  # between the listing of their folder and their turn
    not_in_catalogue: int = 0  # audio that the table of tracks does not name
    missing: int = 0  # tracks without a file, which are no part of the total
    named: list[str] = field(default_factory=list)  # the first unusable entries, with the problem

    @property
    def total(self) -> int:
        """The number of entries that the walk met."""
        counted = (self.unusable, self.not_audio, self.excluded)
        return self.audio + self.links + self.vanished + sum(sum(it.values()) for it in counted)

    def add(self, path: str, problem: str | None) -> None:
        """Count a listed file; apart if no row of a table stands for it."""
        if problem in PROBLEM_TEXTS:
            self.unusable[problem] = self.unusable.get(problem, 0) + 1
            if len(self.named) < MAX_NAMED:
                self.named.append(f"{PROBLEM_TEXTS[problem]}: {printable(path)}; {REMEDIES[problem]}")
        else:
            self.audio += 1

    def pass_over(self, path: str, why: str, rule: str | None) -> None:
        """Count an entry that is not listed."""
        if why == "link":
            self.links += 1
        elif why == "vanished":
            self.vanished += 1
        elif rule is not None:
            self.excluded[rule] = self.excluded.get(rule, 0) + 1
        else:
            found = SUFFIX.search(path)
            suffix = found[0].lower() if found else NO_SUFFIX
            if suffix not in self.not_audio and len(self.not_audio) >= MAX_SUFFIXES:
                suffix = OTHER_SUFFIXES
            self.not_audio[suffix] = self.not_audio.get(suffix, 0) + 1

    def line(self, audio: Mapping[str, int]) -> str:
        """Return one line whose numbers add up to the total; `audio` are those of the listed files by result."""
        return f"all files of the source ({self.total:,}): {self.breakdown(audio)}"

    def breakdown(self, audio: Mapping[str, int]) -> str:
        """Return the numbers of the line."""
        parts = [f"{count:,} {result}" for result, count in audio.items() if count]
        parts += [f"{count:,} {PROBLEM_TEXTS[problem]}" for problem, count in self.unusable.items()]
        if self.not_in_catalogue:
            parts.append(f"{self.not_in_catalogue:,} not in the table of tracks")
        if self.not_audio:
            parts.append(f"{sum(self.not_audio.values()):,} not audio ({_by_count(self.not_audio)})")
        if self.excluded:
            parts.append(f"{sum(self.excluded.values()):,} excluded ({_by_count(self.excluded)})")
        if self.links:
            links = "link" if self.links == 1 else "links"
            parts.append(f"{self.links:,} {links} to what is listed under its own name")
        if self.vanished:
            parts.append(f"{self.vanished:,} removed meanwhile")
        return ", ".join(parts) or "none"

    def lines(self, audio: Mapping[str, int], exclude: Sequence[str] = ()) -> list[str]:
        """Return the account for a terminal, with the unusable entries, and the globs that match nothing."""
        more = sum(self.unusable.values()) - len(self.named)
        lines = [self.line(audio), *self.named, *([f"and {more:,} more like these"] if more > 0 else [])]
        idle = [glob for glob in exclude if f"--exclude {glob}" not in self.excluded]
        return [*lines, *(f"--exclude {glob}: left out no file" for glob in idle)]


def _by_count(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    shown = [f"{count:,} {name}" for name, count in ordered[:MAX_PRINTED_SUFFIXES]]
    rest = sum(count for _, count in ordered[MAX_PRINTED_SUFFIXES:])
    return ", ".join([*shown, *([f"{rest:,} others"] if rest else [])])
