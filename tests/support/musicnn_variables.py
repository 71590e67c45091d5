"""Variables as musicnn's graph has them, with random values and few channels."""

import numpy as np
from numpy.typing import NDArray

from preprocessing.features.musicnn import Musicnn
from preprocessing.features.musicnn_weights import make_musicnn

TIMBRAL, TEMPORAL, MIDDLE, DENSE = 3, 2, 4, 6  # channels; musicnn has 204, 51, 64 and 200


def random_variables(seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Return kernels, biases and batch norms by the names of the graph; some gains are negative."""
    random = np.random.default_rng(seed)
    first = 2 * TIMBRAL + 3 * TEMPORAL
    shapes = {
        "conv2d": (7, 38, 1, TIMBRAL),
        "conv2d_1": (7, 67, 1, TIMBRAL),
        "conv2d_2": (128, 1, 1, TEMPORAL),
        "conv2d_3": (64, 1, 1, TEMPORAL),
        "conv2d_4": (32, 1, 1, TEMPORAL),
        "conv2d_5": (7, first, 1, MIDDLE),
        "conv2d_6": (7, MIDDLE, 1, MIDDLE),
        "conv2d_7": (7, MIDDLE, 1, MIDDLE),
        "dense": (2 * (first + 3 * MIDDLE), DENSE),
    }
    variables = {}
    for name, shape in shapes.items():
        variables[f"{name}/kernel"] = random.normal(0, 1 / np.sqrt(np.prod(shape[:-1])), shape)
        variables[f"{name}/bias"] = random.normal(0, 0.5, shape[-1])
    channels = [shape[-1] for shape in shapes.values()]
    for number, size in enumerate([1, *channels[:-1], shapes["dense"][0], DENSE]):
        name = f"batch_normalization_{number}" if number else "batch_normalization"
        variables[f"{name}/gamma"] = random.normal(0, 1, size)
        variables[f"{name}/beta"] = random.normal(0, 1, size)
        variables[f"{name}/moving_mean"] = random.normal(0, 1, size)
        variables[f"{name}/moving_variance"] = random.uniform(0.5, 2, size)
    return {name: values.astype(np.float32) for name, values in variables.items()}


def random_musicnn() -> Musicnn:
    """Return a network of the shape of musicnn."""
    return make_musicnn(random_variables())
