"""Write tests/golden/tensor_bundle by TensorFlow: run it with the Python of an environment that has it."""

import os
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import tensorflow as tf

FOLDER = Path(__file__).with_name("tensor_bundle")


def main() -> None:
    """Save variables of several shapes, more than share a restart point of the index, and one that is no float."""
    tf.compat.v1.disable_eager_execution()
    values = {f"layer_{number}/kernel": np.arange(number + 1) + number / 4 for number in range(20)}
    values |= {"scalar": np.float32(-1.5), "square": np.arange(12).reshape(3, 4) / 8}
    for name, value in values.items():
        tf.compat.v1.get_variable(name, initializer=np.asarray(value, np.float32))
    tf.compat.v1.get_variable("step", initializer=np.int64(7))
    with tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(
            session, str(FOLDER / "weights"), write_meta_graph=False, write_state=False
        )


if __name__ == "__main__":
    main()
