"""predictions.csv as a spreadsheet program saved it: the rows by file, with the columns `genres` and `apply`."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from store.errors import BadInput
from store.fs.csv_rows import quote_formula, unquote_formula
from store.fs.files import read_bytes
from store.tagging.predictions import APPLY, CSV_COLUMNS, csv_cells
from store.tags.genre_map import validate_genre_name
from store.tags.vocabulary.spelling import split_strong

REQUIRED = ("track_id", "genres", "apply", "run")
DELIMITERS = ",;\t"  # Excel writes the one of the country's list separator
APPLIES = {
    "yes": True,
    "true": True,
    "1": True,
    "x": True,
    "no": False,
    "false": False,
    "0": False,
    "": False,
}
WRITTEN = ("written", "restored", "restored-tags")


@dataclass(frozen=True)
class Line:
    """A row of the table: the cells that a person may correct, and the line it begins on."""

    number: int
    genres: str
    applies: bool


@dataclass(frozen=True)
class CsvTable:
    """All rows of the table, by the cell that names their file, and the run that they are of."""

    url: str
    run: str
    lines: dict[str, Line]

    def check_files(self, track_ids: Iterator[str]) -> None:
        """Raise BadInput if a row is of no file of the run."""
        unknown = set(self.lines)
        for track_id in track_ids:
            unknown.discard(csv_cells({"track_id": track_id})["track_id"])
        if unknown:
            name = min(unknown, key=lambda each: self.lines[each].number)
            raise self._refusal(
                self.lines[name].number,
                name,
                f"is no file of the run {self.run}; remove the row, or correct its name",
            )

    def correct(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Return a row of PREDICTIONS_SCHEMA as the table has it; None if its row was removed.

        Raises: BadInput, with the line, for genres that no tag can contain, and for corrected genres that
            are not to be applied.
        """
        cells = csv_cells(row)
        line = self.lines.get(cells["track_id"])
        if line is None:
            return None
        is_corrected = line.genres != cells["genres"]
        if is_corrected and not line.applies:
            reason = (
                "has corrected genres, but its column apply is no: write yes, or take the correction back"
            )
            raise self._refusal(line.number, cells["track_id"], reason)
        if not line.applies:
            is_left = {"status": "kept", "reason": "not-applied", "detail": "its column apply is no"}
            return row | is_left if cells[APPLY] == "yes" else row
        genres = self._genres(line, row) if is_corrected else row["genres"]
        old = row["genres"] if row["status"] in WRITTEN else row["old_genres"]
        return row | {"status": "change", "genres": genres, "old_genres": old}

    def _genres(self, line: Line, row: dict[str, Any]) -> list[str]:
        """Return the genres in a corrected cell; a text of the file that joins several stays one."""
        texts = [
            text
            for text in (*(row["genres"] or ()), *(row["old_genres"] or ()))
            if len(split_strong(text)) > 1
        ]
        parts = [part.strip() for part in unquote_formula(line.genres).split(";") if part.strip()]
        genres = []
        while parts:
            joined = next(
                (
                    text
                    for text in texts
                    if parts[: len(text.split(";"))] == [it.strip() for it in text.split(";")]
                ),
                parts[0],
            )
            genres.append(joined)
            parts = parts[len(joined.split(";")) :]
        for name in genres:
            try:
                validate_genre_name(name)
            except BadInput as why:
                raise self._refusal(line.number, row["track_id"], str(why)) from None
        return genres

    def _refusal(self, number: int, name: str, reason: str) -> BadInput:
        return BadInput(f"{self.url}: line {number}: {name!r} {reason}")


def read_csv_table(url: str) -> CsvTable:
    """Read predictions.csv. Raises: BadInput if it is no such table, or not the rows of one run."""
    text = _decode(url)
    delimiter = max(DELIMITERS, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header = [name.strip() for name in next(reader, [])]
    _check_header(url, header)
    lines: dict[str, Line] = {}
    run, end = "", reader.line_num
    for cells in reader:
        number, end = end + 1, reader.line_num
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise BadInput(
                f"{url}: line {number}: {len(cells)} cells for {len(header)} columns; correct the line"
            )
        row = dict(zip(header, cells, strict=True))
        # A person may have removed the mark that keeps a spreadsheet program from computing a name.
        name, run_of_row = quote_formula(unquote_formula(row["track_id"])), row["run"].strip()
        run = run or run_of_row
        if not run_of_row or run_of_row != run:
            raise BadInput(
                f"{url}: line {number}: {name!r} is of the run {run_of_row or '(none)'}, and the rows above of {run}; "
                "apply each run's rows on their own"
            )
        if name in lines:
            raise BadInput(
                f"{url}: line {number}: {name!r} is in line {lines[name].number} already; keep one of them"
            )
        lines[name] = Line(number, row["genres"].strip(), _applies(url, number, name, row["apply"]))
    if not lines:
        raise BadInput(f"{url}: has no row; wanted the predictions.csv of a tagging run")
    return CsvTable(url, run, lines)


def _decode(url: str) -> str:
    try:
        data = read_bytes(url)
    except (FileNotFoundError, IsADirectoryError):
        raise BadInput(f"{url}: no such file; wanted the predictions.csv of a tagging run") from None
    try:
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f'{url}: not UTF-8; save it again as "CSV UTF-8"') from None


def _check_header(url: str, header: Sequence[str]) -> None:
    unknown = [name for name in header if name not in CSV_COLUMNS]
    if unknown:
        raise BadInput(f"{url}: unknown column {unknown[0]!r}; known are {', '.join(CSV_COLUMNS)}")
    double = [name for name in header if header.count(name) > 1]
    if double:
        raise BadInput(f"{url}: the column {double[0]!r} is there twice; remove one of them")
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise BadInput(f"{url}: has no column {missing[0]!r}; needed are {', '.join(REQUIRED)}")


def _applies(url: str, number: int, name: str, cell: str) -> bool:
    word = cell.strip().casefold()
    if word not in APPLIES:
        raise BadInput(f"{url}: line {number}: {name!r} has {cell!r} in the column apply; wanted yes or no")
    return APPLIES[word]
