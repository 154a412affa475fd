"""What a sampler printed -> a series of samples. Knows every tool's lines and passes over the others.

at 1234.56                                  a round of ours: seconds since boot
temperature 48312 cpu-thermal               /sys/class/thermal, thousandths of a degree
clock 1800000 cpu0 ondemand                 cpufreq, kHz
throttled=0x50005, temp=48.3'C, frequency(48)=600117184        vcgencmd
[08-23-2026 13:57:46] RAM 3595/7607MB ...   tegrastats
Thermal Status: 0, Temperature{mValue=39.6, ..., mName=AP, mStatus=0}   dumpsys thermalservice
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field
from typing import Any

# vcgencmd get_throttled, bits 0-3 now and 16-19 since boot.
THROTTLE_BITS = ("under-voltage", "frequency capped", "throttled", "soft temperature limit")
THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


@dataclass
class Sample:
    """One moment. at_s: seconds since boot; throttled: vcgencmd's bits; thermal_status: Android's 0..6."""

    at_s: float
    temperature_c: dict[str, float] = field(default_factory=dict)
    clock_mhz: dict[str, float] = field(default_factory=dict)
    governor: str | None = None
    throttled: int | None = None
    thermal_status: int | None = None
    power_mw: dict[str, float] = field(default_factory=dict)
    load_percent: dict[str, float] = field(default_factory=dict)

    @property
    def hottest_c(self) -> float | None:
        return max(self.temperature_c.values(), default=None)

    def as_dict(self) -> dict[str, Any]:
        """Only what was seen."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {})}


def parse_telemetry(text: str) -> list[Sample]:
    """Samples in the order of their rounds; lines before the first round belong to it."""
    samples: list[Sample] = []
    pending: list[str] = []
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "at" and (when := _number(rest)) is not None:
            samples.append(Sample(when))
            for early in pending:
                _read(early, samples[-1])
            pending = []
        elif samples:
            _read(line.strip(), samples[-1])
        else:
            pending.append(line.strip())
    return samples


def throttle_words(bits: int) -> list[str]:
    """The names of bits 0-3."""
    return [word for i, word in enumerate(THROTTLE_BITS) if bits >> i & 1]


def _read(line: str, into: Sample) -> None:
    word, _, rest = line.partition(" ")
    if word == "temperature":
        value, _, name = rest.partition(" ")
        if (degrees := _number(value)) is not None:
            into.temperature_c[name or "zone"] = degrees / 1000
    elif word == "clock":
        value, _, rest = rest.partition(" ")
        name, _, governor = rest.partition(" ")
        if (khz := _number(value)) is not None:
            into.clock_mhz[name] = khz / 1000
            into.governor = governor if into.governor in (None, governor) else "mixed"
    elif found := re.fullmatch(r"throttled=0x([0-9a-fA-F]+)", line):
        into.throttled = int(found[1], 16)
    elif found := re.fullmatch(r"temp=([0-9.]+)'C", line):
        into.temperature_c["soc"] = float(found[1])
    elif found := re.fullmatch(r"frequency\((\d+)\)=(\d+)", line):
        into.clock_mhz[f"clock{found[1]}"] = int(found[2]) / 1e6
    elif found := re.match(r"Thermal Status: (\d)", line):
        into.thermal_status = int(found[1])
    elif line.startswith("Temperature{"):
        parts = dict(re.findall(r"(\w+)=([^,}]+)", line))
        if "mName" in parts and (degrees := _number(parts.get("mValue", ""))) is not None:
            into.temperature_c[parts["mName"]] = degrees
    elif " RAM " in f" {line}" and ("CPU [" in line):
        _tegrastats(line, into)


def _tegrastats(line: str, into: Sample) -> None:
    """One line of tegrastats; the timestamp is absent on some releases, and rails vary by board."""
    if found := re.search(r"CPU \[([^\]]*)\]", line):
        for i, core in enumerate(found[1].split(",")):
            if part := re.fullmatch(r"(\d+)%@(\d+)", core):
                into.load_percent[f"cpu{i}"] = float(part[1])
                into.clock_mhz[f"cpu{i}"] = float(part[2])
    if found := re.search(r"GR3D_FREQ (\d+)%(?:@\[?(\d+))?", line):
        into.load_percent["gpu"] = float(found[1])
        if found[2]:
            into.clock_mhz["gpu"] = float(found[2])
    for name, value in re.findall(r"(\w+)@(-?[0-9.]+)C\b", line):
        if float(value) > -200 and name.lower() != "pmic":  # -256: off; Jetson Nano's PMIC always says 100
            into.temperature_c[name.lower()] = float(value)
    for rail, value in re.findall(r"(\w+_\w+) (\d+)(?:mW)?/\d+(?:mW)?(?=\s|$)", line):
        into.power_mw[rail] = float(value)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
