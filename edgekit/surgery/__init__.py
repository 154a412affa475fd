"""Graph -> Graph that a device likes better and that answers nearly the same: lite surgery."""

from edgekit.surgery.ladder import LADDER, ladder
from edgekit.surgery.lite import DEFAULT, STEPS, Lite, lite, step
from edgekit.surgery.record import Change, Climb, Left, Rung, StepRecord

__all__ = [
    "DEFAULT",
    "LADDER",
    "STEPS",
    "Change",
    "Climb",
    "Left",
    "Lite",
    "Rung",
    "StepRecord",
    "ladder",
    "lite",
    "step",
]
