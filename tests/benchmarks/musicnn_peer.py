"""musicnn, as fast as it can be asked: its graph is built and its weights are read once, not for each file.

Run by tests.benchmarks.tagging with the Python of an environment of its own. Reads paths of 30 s
clips, a line each; prints the seconds that each took, from file to tags.
"""

import os
import sys
import time
from collections.abc import Callable

os.environ |= {
    "CUDA_VISIBLE_DEVICES": "",
    "TF_USE_LEGACY_KERAS": "1",  # musicnn is older than Keras 3
    "TF_CPP_MIN_LOG_LEVEL": "3",
}

import librosa
import numpy as np
import tensorflow as tf
from musicnn import configuration, models
from musicnn.extractor import batch_data

MODEL, PATCH_S = "MTT_musicnn", 3


def main() -> None:
    """Answer until there are no more paths."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # it prints
    frames = 1 + int(
        librosa.time_to_frames(
            PATCH_S, sr=configuration.SR, n_fft=configuration.FFT_SIZE, hop_length=configuration.FFT_HOP
        )
    )
    run = open_graph(MODEL, len(configuration.MTT_LABELS), frames)
    print("ready", file=answers)
    for line in sys.stdin:
        begun = time.perf_counter()
        batch, _ = batch_data(line.rstrip("\n"), frames, frames)
        tags, _ = run(batch)
        likely = tags.mean(axis=0)
        assert likely.shape == (50,)
        print(time.perf_counter() - begun, file=answers)


def open_graph(model: str, labels: int, frames: int) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return a function from patches (T, frames, 96) to their tags (T, labels) and embeddings (T, 200); one thread."""
    tf.compat.v1.disable_eager_execution()
    with tf.name_scope("model"):
        patches = tf.compat.v1.placeholder(tf.float32, [None, frames, configuration.N_MELS])
        training = tf.compat.v1.placeholder(tf.bool)
        logits, *_, embedding = models.define_model(patches, training, model, labels)
        outputs = (tf.nn.sigmoid(logits), embedding)
    one = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    session = tf.compat.v1.Session(config=one)
    session.run(tf.compat.v1.global_variables_initializer())
    tf.compat.v1.train.Saver().restore(session, os.path.join(os.path.dirname(models.__file__), model, ""))
    return lambda batch: session.run(outputs, feed_dict={patches: batch, training: False})


if __name__ == "__main__":
    main()
