"""Rows of results, grouped and averaged."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]  # of results.csv


def rows_by(rows: Sequence[Row], *columns: str) -> dict[tuple[Any, ...], list[Row]]:
    """Group rows by some columns, in the order of their first rows."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in columns), []).append(row)
    return groups


def mean_of(rows: Sequence[Row], column: str) -> float:
    """Return the mean of a column; rows without a value are left out."""
    values = [row[column] for row in rows if row.get(column) is not None]
    return float(np.mean(values)) if values else float("nan")


def spread(values: Sequence[float]) -> tuple[float, float, float, float]:
    """Return mean, standard deviation (0 for a single value), lowest and highest."""
    values_N = np.array(values, np.float64)
    std = float(values_N.std(ddof=1)) if len(values_N) > 1 else 0.0
    return float(values_N.mean()), std, float(values_N.min()), float(values_N.max())
