"""The process in which TensorFlow writes a SavedModel: a pickled Program on standard input -> a directory.

`python -m edgekit.lower.savedmodel.worker DIRECTORY < PROGRAM`. A fresh process numbers TensorFlow's
functions from zero, which makes the bytes repeat, and keeps its threads and log lines out of the build.
TensorFlow loaded before torchvision would end the process: both bring LLVM.
"""

from __future__ import annotations

import os
import pickle
import sys


def main() -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    from edgekit.lower.savedmodel.module import build

    module = build(tf, pickle.load(sys.stdin.buffer))
    tf.saved_model.save(module, sys.argv[1], signatures={"serving_default": module.serve})


if __name__ == "__main__":
    main()
