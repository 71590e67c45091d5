"""CSV files: UTF-8, a header line, floats rounded to six decimals."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

BOM = "\ufeff"  # without it Excel reads UTF-8 as the code page of the country
FORMULA = re.compile(r"'*[=+\-@\t\r\uff0b\uff0d\uff1d\uff20]")


def write_csv(file: TextIO, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a header and one line a row into a text file opened with newline=""; keys without a column are left out."""
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _rounded(value) for key, value in row.items()} for row in rows)


def quote_formula(text: str) -> str:
    """Return a text that no spreadsheet program takes for a formula: with "'" before it, if it begins like one.

    Source: OWASP, "CSV Injection".
    """
    return f"'{text}" if FORMULA.match(text) else text


def unquote_formula(text: str) -> str:
    """Return a text without the mark of `quote_formula`."""
    return text[1:] if text.startswith("'") and FORMULA.match(text[1:]) else text


def to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return what `write_csv` writes."""
    text = io.StringIO()
    write_csv(text, columns, rows)
    return text.getvalue().encode()


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
