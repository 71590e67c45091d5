"""The table of a model's probabilities on validation and test tracks, kept with each version."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

HELD_OUT_PREDICTIONS_FILE = "report/held_out_predictions.parquet"  # of a model version
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


def select_split(predictions: pa.Table, split: str) -> pa.Table:
    """Return the rows of one split."""
    return predictions.filter(pc.equal(predictions["split"], split))


def to_matrix(predictions: pa.Table, column: str) -> NDArray[np.float64]:
    """Return a column of lists of one length as an array. Shapes: (T, G)."""
    if not len(predictions):
        return np.empty((0, 0))
    values = pc.list_flatten(predictions[column]).to_numpy()
    return np.asarray(values, np.float64).reshape(len(predictions), -1)
