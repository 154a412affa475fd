"""Builds one point: a request as JSON on standard input, the build's directory as its effect.

    python -m edgekit.sweep.point < request.json

The request holds "recipe", "out", "cache" (null for the user's), "trust" and "alone". A process of its own,
so that what kills it costs this point only. Exit code 2 and one line on standard error for what cannot be
built; a gate that failed is part of the result. It ends with the process that started it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from edgekit.errors import EdgekitError


def main() -> int:
    from edgekit.pipeline.threads import wait_passively

    wait_passively()  # before torch is loaded
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    request = json.load(sys.stdin)
    from edgekit.pipeline import recipe as recipes
    from edgekit.pipeline.pipeline import build
    from edgekit.sweep import lock

    try:
        with lock.machine(request["alone"]):
            recipe = recipes.from_dict(request["recipe"], "sweep")
            build(recipe, out=Path(request["out"]), trust=request["trust"], cache=request["cache"])
    except EdgekitError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


def _end_with(parent: int) -> None:
    """A sweep that was killed leaves nothing running."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main())
