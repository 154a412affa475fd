"""Whether a board's figures mean anything: telemetry before, during and after -> reasons why not."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.device.probe.telemetry import THERMAL_STATUS, Sample, throttle_words

UNCOUNTED = "this system does not tell when a process is preempted: no sample was dropped"
_CLOCK_SHARE = 0.9  # of what the clock was before, under governor performance


def telemetry_reasons(
    before: Sample, during: Sequence[Sample], after: Sample, max_temperature_c: float | None = None
) -> list[str]:
    """Every reason why a measurement between two samples is invalid, each once."""
    reasons: list[str] = []
    moments = [before, *during, after]
    for bits in [moment.throttled for moment in moments if moment.throttled is not None]:
        reasons += [f"throttled: {word}" for word in throttle_words(bits)]
    if before.throttled is not None and after.throttled is not None:
        fresh = (after.throttled >> 16) & ~(before.throttled >> 16) & 0xF
        reasons += [f"throttled: {word}" for word in throttle_words(fresh)]
    worst = max((m.thermal_status for m in moments if m.thermal_status is not None), default=0)
    if worst:
        reasons.append(f"throttled: thermal status {worst} ({THERMAL_STATUS[min(worst, 6)]})")
    governors = {moment.governor for moment in moments if moment.governor is not None}
    if len(governors) > 1:
        reasons.append(f"the governor changed: {', '.join(sorted(governors))}")
    elif governors == {"performance"}:
        for name, clock in before.clock_mhz.items():
            lowest = min((m.clock_mhz[name] for m in during if name in m.clock_mhz), default=clock)
            if lowest < _CLOCK_SHARE * clock:
                reasons.append(f"the clock of {name} fell from {clock:.0f} to {lowest:.0f} MHz")
    hottest = max((m.hottest_c for m in moments if m.hottest_c is not None), default=None)
    if max_temperature_c is not None and hottest is not None and hottest > max_temperature_c:
        reasons.append(f"{hottest:.1f} C, above the limit of {max_temperature_c:g} C")
    return list(dict.fromkeys(reasons))


def busy_notes(load: float, cores: int) -> list[str]:
    """What is said beside figures that were taken while something else ran."""
    if load <= max(0.5, 0.25 * cores):
        return []
    return [f"load {load:g} on {cores} cores when it began: other work ran alongside"]
