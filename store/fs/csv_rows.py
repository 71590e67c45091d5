"""CSV files: UTF-8, a header line, floats rounded to six decimals."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO


def write_csv(file: TextIO, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a header and one line a row into a text file opened with newline=""; keys without a column are left out."""
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _rounded(value) for key, value in row.items()} for row in rows)


def to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return what `write_csv` writes."""
    text = io.StringIO()
    write_csv(text, columns, rows)
    return text.getvalue().encode()


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
