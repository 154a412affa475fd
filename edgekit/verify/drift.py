"""How far an artifact's answers drift from the reference's: the task says it, see edgekit.tasks.

`drift` compares two arrays of logits as a classification does, for benchmarks and tests of files.
"""

from __future__ import annotations

from edgekit.tasks.classification import compare_logits as drift
from edgekit.tasks.record import Change, Drift, Flip, OutputError
from edgekit.tasks.statistics import (
    RESAMPLES,
    SQNR_CEILING_DB,
    drop_interval,
    mcnemar_p,
    softmax,
    sqnr_db,
)

__all__ = [
    "RESAMPLES",
    "SQNR_CEILING_DB",
    "Change",
    "Drift",
    "Flip",
    "OutputError",
    "drift",
    "drop_interval",
    "mcnemar_p",
    "softmax",
    "sqnr_db",
]
