"""Programs under TensorFlow without saving them, all in one fresh process: LiteRT cannot be loaded beside it.

`run_programs([(program, inputs), ...])` -> per program the outputs by signature key, or the error's text.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.lower.savedmodel.program import Program

ROOT = Path(__file__).parents[2]


def run_programs(jobs: list[tuple[Program, np.ndarray]]) -> list[dict[str, np.ndarray] | str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.lower.tensorflow_runs"],
        input=pickle.dumps(jobs),
        capture_output=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return pickle.loads(done.stdout)


def _run(tf: Any, program: Program, images: np.ndarray) -> dict[str, np.ndarray] | str:
    from edgekit.lower.savedmodel.module import run_program

    try:
        given = (tf.constant(images),)
        return {key: value.numpy() for key, value in run_program(tf, program, {}, given).items()}
    except (tf.errors.OpError, ValueError, TypeError, KeyError) as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    answers = [_run(tf, *job) for job in pickle.load(sys.stdin.buffer)]
    sys.stdout.buffer.write(pickle.dumps(answers))
