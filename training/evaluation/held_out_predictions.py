"""The table of a model's probabilities on validation and test tracks, kept with each version."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from store.errors import BadInput, first_line
from store.fs.files import join
from store.fs.parquet import read_table
from store.model_registry import REPORT_FOLDER
from training.run_files import RUN_PREDICTIONS_FILE

HELD_OUT_PREDICTIONS_FILE = f"{REPORT_FOLDER}/{RUN_PREDICTIONS_FILE}"  # of a model version
HELD_OUT_PREDICTIONS_SCHEMA = pa.schema(
    [
        ("track_id", pa.string()),
        ("split", pa.string()),
        ("artist", pa.string()),
        ("title", pa.string()),
        ("truth", pa.list_(pa.int8())),  # 0 or 1 for each genre of the model, in its order
        ("probabilities", pa.list_(pa.float32())),  # the network's own, not calibrated
    ]
)


def read_held_out_predictions(version_url: str, columns: Sequence[str] = ()) -> pa.Table:
    """Read the held-out predictions of a version, or some columns of them.

    Raises: BadInput if they are missing, damaged or another table; OSError if the disk or the server fails.
    """
    url = join(version_url, HELD_OUT_PREDICTIONS_FILE)
    schema = pa.schema(
        [HELD_OUT_PREDICTIONS_SCHEMA.field(name) for name in columns or HELD_OUT_PREDICTIONS_SCHEMA.names]
    )
    try:
        table = read_table(url, schema.names)
    except FileNotFoundError:
        raise BadInput(
            f"{version_url}: has no stored predictions ({HELD_OUT_PREDICTIONS_FILE} is missing); train it again"
        ) from None
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise BadInput(
            f"{url}: has no column {', '.join(missing)}; wanted {', '.join(schema.names)}; restore it from a copy"
        )
    try:
        return table.select(schema.names).cast(schema)
    except pa.ArrowException as why:
        raise BadInput(
            f"{url}: not a version's held-out predictions ({first_line(why)}); restore it from a copy"
        ) from None


def select_split(predictions: pa.Table, split: str) -> pa.Table:
    """Return the rows of one split."""
    return predictions.filter(pc.equal(predictions["split"], split))


def to_matrix(predictions: pa.Table, column: str) -> NDArray[np.float64]:
    """Return a column of lists of one length as an array. Shapes: (T, G)."""
    if not len(predictions):
        return np.empty((0, 0))
    values = pc.list_flatten(predictions[column]).to_numpy()
    return np.asarray(values, np.float64).reshape(len(predictions), -1)
