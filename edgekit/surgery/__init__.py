"""Graph -> Graph that a device likes better and that answers nearly the same: lite surgery."""

from edgekit.surgery.lite import DEFAULT, STEPS, Lite, lite, step
from edgekit.surgery.record import Change, Left, StepRecord

__all__ = ["DEFAULT", "STEPS", "Change", "Left", "Lite", "StepRecord", "lite", "step"]
