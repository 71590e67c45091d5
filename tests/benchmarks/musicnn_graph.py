"""musicnn's own graph on patches of a spectrogram.

Run by tests.benchmarks.musicnn_agreement with the Python of an environment of its own: reads patches (.npy), writes
what the last hidden layer makes of them, and the seconds that one patch takes on a thread.
"""

import os
import sys
import time

os.environ |= {
    "CUDA_VISIBLE_DEVICES": "",
    "TF_USE_LEGACY_KERAS": "1",  # musicnn is older than Keras 3
    "TF_CPP_MIN_LOG_LEVEL": "3",
}

import numpy as np
import tensorflow as tf
from musicnn import configuration, models

MODEL, ROUNDS = "MSD_musicnn", 5


def main() -> None:
    """Embed the patches."""
    source, destination = sys.argv[1:]
    patches_TFM = np.load(source)
    tf.compat.v1.disable_eager_execution()
    with tf.name_scope("model"):
        patches = tf.compat.v1.placeholder(tf.float32, [None, *patches_TFM.shape[1:]])
        training = tf.compat.v1.placeholder(tf.bool)
        embedding = models.define_model(patches, training, MODEL, len(configuration.MSD_LABELS))[-1]
    one = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    session = tf.compat.v1.Session(config=one)
    session.run(tf.compat.v1.global_variables_initializer())
    tf.compat.v1.train.Saver().restore(session, os.path.join(os.path.dirname(models.__file__), MODEL, ""))
    seconds = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        embedded_TC = session.run(embedding, feed_dict={patches: patches_TFM, training: False})
        seconds.append((time.process_time() - begun) / len(patches_TFM))
    np.savez(destination, embedding=embedded_TC, seconds=min(seconds))


if __name__ == "__main__":
    main()
