"""Results of a tagging run: Parquet, one row a track, a part for each batch until all are in.

ROOT/RUN/heard/00000.parquet        what one batch of files sounded like
ROOT/RUN/predictions.parquet        all of them, once the run is through
"""

from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from store.files import join, list_names, read_bytes, write_whole

PREDICTIONS_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),  # the path within the source
        ("url", pa.string()),
        ("status", pa.string()),  # change | written | copied | kept | unsure | rejected | failed
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("old_genres", pa.list_(pa.string())),
        ("genres", pa.list_(pa.string())),  # what the model says, the likeliest first
        ("confidence", pa.float64()),  # the probability of the likeliest genre
        ("probabilities", pa.list_(pa.float32())),  # one a genre, in the model's order
        ("model_version", pa.string()),
    ]
)


def write_part(run_url: str, folder: str, number: int, rows: pa.Table) -> None:
    """Keep the rows of one batch, whole; the same batch again replaces them."""
    _write_table(join(run_url, folder, f"{number:06d}.parquet"), rows)


def read_parts(run_url: str, folder: str) -> pa.Table:
    """Read the rows of all batches kept so far, in the order of their numbers."""
    names = [name for name in list_names(join(run_url, folder)) if name.endswith(".parquet")]
    parts = [_read_table(join(run_url, folder, name)) for name in names]
    return pa.concat_tables(parts) if parts else PREDICTIONS_SCHEMA.empty_table()


def write_predictions(run_url: str, rows: pa.Table) -> str:
    """Write the run's result in one file and give its URL."""
    url = join(run_url, "predictions.parquet")
    _write_table(url, rows)
    return url


def read_predictions(run_url: str) -> pa.Table:
    """Read a run's result. Raises: FileNotFoundError."""
    return _read_table(join(run_url, "predictions.parquet"))


def _write_table(url: str, rows: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    write_whole(url, sink.getvalue().to_pybytes())


def _read_table(url: str) -> pa.Table:
    return pq.read_table(BytesIO(read_bytes(url)))
