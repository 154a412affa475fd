"""What each form of a model is predicted to take on this machine, where its units were timed before.

Nothing is timed here: `edgekit cost measure` does, and so does a step that is asked for milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit.cost.predict import cost_for
from edgekit.cost.table import tables
from edgekit.device.inventory import HOST
from edgekit.errors import UnsupportedError, UsageError
from edgekit.pipeline.job import Form
from edgekit.targets import Target


def predict(forms: Sequence[Form], targets: Sequence[Target], threads: int, root: Path) -> None:
    """Fill `predicted` of every form whose units are known.

    Args:
        root: where tables of times lie.
    """
    known = any(table.threads == threads for table in tables(root))
    for target in targets if known else ():
        if target.format != "tflite":  # of other formats no units are timed
            continue
        try:
            cost = cost_for(HOST, target.name, threads, root)
        except UsageError:  # of another machine
            return
        for form in forms:
            try:
                form.predicted[target.name] = cost.graph_ms(form.graph)
            except (UsageError, UnsupportedError):  # nothing like a unit of it was timed
                continue
