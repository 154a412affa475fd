"""A process for TensorFlow alone; imports nothing of edgekit, torch or LiteRT.

`python -m edgekit.runtimes.tensorflow.worker < JOB` takes a pickled dict and writes a pickled one:

    {"task": "saved_model", "directory", "inputs": key -> (N, ...)} -> {"version", "outputs": key -> (N, ...)}
    {"task": "interpreter", "data", "inputs" [[array, ...], ...]}   -> {"version", "outputs": kernels -> rows}

Why a process of its own: TensorFlow loaded before torchvision ends the process, since both bring LLVM, and
in which order a build loads them must not matter. What TensorFlow says on standard error (log lines, the
deprecation of tf.lite.Interpreter) is shown only when it fails.
"""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any

import numpy as np

BATCH = 16
KERNELS = {"default": "AUTO", "reference": "BUILTIN_REF"}


def saved_model(tf: Any, job: dict[str, Any]) -> dict[str, np.ndarray]:
    """The outputs of serving_default for inputs as the model takes them, by signature key."""
    signature = tf.saved_model.load(job["directory"]).signatures["serving_default"]
    specs, inputs = signature.structured_input_signature[1], job["inputs"]
    size = BATCH if all(spec.shape[0] is None for spec in specs.values()) else 1
    rows = []
    for i in range(0, len(next(iter(inputs.values()))), size):
        rows.append(signature(**{key: tf.constant(inputs[key][i : i + size]) for key in specs}))
    return {name: np.concatenate([np.atleast_1d(row[name].numpy()) for row in rows]) for name in rows[0]}


def interpreter(tf: Any, job: dict[str, Any]) -> dict[str, list[list[np.ndarray]]]:
    """Every output for every row of inputs, with XNNPACK and with the reference kernels."""
    answers = {}
    for name, resolver in KERNELS.items():
        kind = getattr(tf.lite.experimental.OpResolverType, resolver)
        runner = tf.lite.Interpreter(
            model_content=job["data"], num_threads=1, experimental_op_resolver_type=kind
        )
        runner.allocate_tensors()
        taken, given = runner.get_input_details(), runner.get_output_details()
        rows = []
        for arrays in job["inputs"]:
            for detail, array in zip(taken, arrays, strict=True):
                runner.set_tensor(detail["index"], array)
            runner.invoke()
            rows.append([runner.get_tensor(detail["index"]) for detail in given])
        answers[name] = rows
    return answers


TASKS = {"saved_model": saved_model, "interpreter": interpreter}


def main() -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    job = pickle.load(sys.stdin.buffer)
    answer = {"version": tf.__version__, "outputs": TASKS[job["task"]](tf, job)}
    sys.stdout.buffer.write(pickle.dumps(answer))


if __name__ == "__main__":
    main()
