"""Is run B slower than run A? Two records in, a verdict with its evidence out.

The unit is the fresh process, not the sample: samples of one process share its memory layout and its luck,
and a test over samples calls most identical runs different. So a tool that gives no samples but a median in
each process gets a verdict too. A difference is called when both hold:

- the change of p50 (the median over processes of each one's median) exceeds max(3 %, 3 x noise);
- an exact permutation test over the ranks of the process medians gives a two-sided p < 0.05. Ranks, because
  one disturbed process must neither make nor hide a verdict; 5 against 5 processes reach p = 2/252 at best,
  fewer than 4 a side cannot reach 0.05 and get no verdict.

Noise is the standard deviation of the change between two runs of one artifact: sqrt(2) x the pooled standard
deviation of log p50 over other stored runs of equal conditions, once they give 4 degrees of freedom (with
fewer, 3 x an estimate is exceeded by chance in 5 % of the cases: Student's t). Until then it is the
between-process deviation of A and B themselves, 1.4826 x the median absolute deviation: it cannot see a
machine that changes between runs, where identical runs are then called different; a note says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgekit.errors import UsageError
from edgekit.history.record import Record

MIN_CHANGE_PERCENT = 3.0
NOISE_FACTOR = 3.0
ALPHA = 0.05
MIN_PROCESSES = 4
MIN_FREEDOM = 4
_RESAMPLES = 4000

# What a user may compare across on purpose, and the conditions it frees.
ACROSS: dict[str, frozenset[str]] = {
    "runtime": frozenset({"runtime"}),
    "target": frozenset({"target"}),
    "model": frozenset({"model", "target"}),
}


class RefusedError(UsageError):
    """Two runs that must not be compared; `differences` has every reason, `invalid` says one is INVALID."""

    def __init__(self, message: str, differences: list[str], invalid: bool) -> None:
        super().__init__(message)
        self.differences = differences
        self.invalid = invalid


@dataclass(frozen=True)
class Noise:
    """One standard deviation of an A/A change, in percent, and where it comes from."""

    percent: float
    source: str
    of_device: bool  # from repeated runs, not from the two compared


@dataclass(frozen=True)
class Comparison:
    """B against A: verdict is 'regression', 'improvement', 'no difference' or 'no verdict'."""

    a: str
    b: str
    verdict: str
    words: str
    a_p50_ms: float
    b_p50_ms: float
    change_percent: float
    interval_percent: tuple[float, float]  # 95 %, bootstrap over processes
    p_value: float | None
    alpha: float
    threshold_percent: float
    min_change_percent: float
    noise: Noise
    processes: tuple[int, int]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    a: Record,
    b: Record,
    repeats: Iterable[Record] = (),
    *,
    across: Iterable[str] = (),
    min_change_percent: float = MIN_CHANGE_PERCENT,
) -> Comparison:
    """Compare two records (checked, with samples_ns); positive change means that B is slower.

    Args:
        repeats: other stored runs; those of equal conditions give the device's noise.
        across: conditions that may differ on purpose: 'runtime', 'target', 'model'.
        min_change_percent: the smallest change of p50 worth calling.
    Raises: RefusedError when the two are unlike, emulated or INVALID.
    """
    free = _freed(across)
    if not math.isfinite(min_change_percent) or min_change_percent < 0:
        raise UsageError(f"compare: a smallest change of {min_change_percent} %: a number of at least 0")
    refuse(a, b, free)
    x, y = process_medians(a), process_medians(b)
    noise = device_noise(a, b, repeats)
    threshold = max(min_change_percent, NOISE_FACTOR * noise.percent)
    before, after = float(np.median(x)), float(np.median(y))
    change = 100.0 * (after / before - 1.0)
    enough = min(len(x), len(y)) >= MIN_PROCESSES
    p = permutation_p(x, y) if enough else None
    if p is None:
        verdict = "no verdict"
    elif p < ALPHA and abs(change) > threshold:
        verdict = "regression" if change > 0 else "improvement"
    else:
        verdict = "no difference"
    return Comparison(
        a=a["run"],
        b=b["run"],
        verdict=verdict,
        words=_words(verdict, change, p, threshold, (len(x), len(y))),
        a_p50_ms=before,
        b_p50_ms=after,
        change_percent=change,
        interval_percent=_interval(x, y),
        p_value=p,
        alpha=ALPHA,
        threshold_percent=threshold,
        min_change_percent=min_change_percent,
        noise=noise,
        processes=(len(x), len(y)),
        notes=tuple(_notes(a, b, free, noise)),
    )


def refuse(a: Record, b: Record, free: frozenset[str] = frozenset()) -> None:
    """Raise RefusedError with everything that forbids the comparison."""
    found = differences(a, b, free)
    invalid = False
    for record in (a, b):
        if record["device"]["emulated"]:
            found.append(f"{record['run']} ran on an emulated device")
        if not record["validity"]["ok"]:
            invalid = True
            found.append(f"{record['run']} is INVALID ({', '.join(record['validity']['reasons'])})")
    found = list(dict.fromkeys(found))
    if found:
        raise RefusedError(
            f"compare {a['run']} {b['run']}: {'; '.join(found)}: two valid runs of equal conditions",
            found,
            invalid,
        )


def differences(a: Record, b: Record, free: frozenset[str] = frozenset()) -> list[str]:
    """Every condition in which two records differ, as 'threads 1 and 4'."""
    found = []
    ours, theirs = _conditions(a), _conditions(b)
    for name in dict.fromkeys([*ours, *theirs]):
        if name.partition(".")[0] not in free and ours.get(name, "absent") != theirs.get(name, "absent"):
            found.append(f"{name} {_said(ours, name)} and {_said(theirs, name)}")
    return found


def process_medians(record: Record) -> np.ndarray:
    """(processes,) the median of each fresh process, milliseconds; one value where no more was kept."""
    if record["samples_ns"]:
        return np.array([float(np.median(run)) / 1e6 for run in record["samples_ns"]])
    latency = record["latency"]
    return np.array(latency.get("process_p50_ms") or [latency["p50_ms"]], float)


def permutation_p(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Two-sided p of the rank sum of `x` among all choices of len(x) pooled values; ties share ranks.

    Exact for any size: ways[k, s] counts the subsets of k values whose doubled ranks sum to s.
    """
    pooled = np.concatenate([np.asarray(x, float), np.asarray(y, float)])
    doubled = _doubled_ranks(pooled)
    chosen, total = len(x), int(doubled.sum())
    ways = np.zeros((chosen + 1, total + 1))
    ways[0, 0] = 1.0
    for rank in doubled:
        ways[1:, rank:] += ways[:-1, : total + 1 - rank].copy()
    middle = chosen * (len(pooled) + 1)  # the expected doubled rank sum
    distance = abs(int(doubled[:chosen].sum()) - middle)
    extreme = np.abs(np.arange(total + 1) - middle) >= distance
    return float(ways[chosen, extreme].sum() / ways[chosen].sum())


def device_noise(a: Record, b: Record, repeats: Iterable[Record] = ()) -> Noise:
    """How much p50 changes between two runs of one artifact under the conditions of A."""
    groups: dict[str, list[float]] = {}
    for record in repeats:
        usable = record["validity"]["ok"] and record["run"] not in (a["run"], b["run"])
        if usable and not differences(a, record):
            groups.setdefault(record["artifact"]["sha256"], []).append(math.log(record["latency"]["p50_ms"]))
    repeated = [np.array(runs) for runs in groups.values() if len(runs) > 1]
    freedom = sum(len(runs) - 1 for runs in repeated)
    if freedom >= MIN_FREEDOM:
        variance = sum(float(((runs - runs.mean()) ** 2).sum()) for runs in repeated) / freedom
        count = sum(len(runs) for runs in repeated)
        return Noise(100.0 * math.sqrt(2.0 * variance), f"{count} stored runs of equal conditions", True)
    return Noise(100.0 * _process_deviation(a, b), "between the processes of these two runs", False)


def _process_deviation(a: Record, b: Record) -> float:
    """Robust standard deviation of log process medians around their own run's median."""
    logs = [np.log(process_medians(record)) for record in (a, b)]
    offsets = np.abs(np.concatenate([run - np.median(run) for run in logs]))
    if len(offsets) <= 2:
        return 0.0
    # each run's own median took one degree of freedom
    return 1.4826 * float(np.median(offsets)) * math.sqrt(len(offsets) / (len(offsets) - 2))


def _interval(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    tops, bottoms = (
        np.median(run[rng.integers(0, len(run), (_RESAMPLES, len(run)))], axis=1) for run in (y, x)
    )
    low, high = np.percentile(100.0 * (tops / bottoms - 1.0), [2.5, 97.5])
    return float(low), float(high)


def _doubled_ranks(values: np.ndarray) -> np.ndarray:
    """(n,) twice the mid-ranks 1..n, which are integers even with ties."""
    below = (values[None, :] < values[:, None]).sum(axis=1)
    equal = (values[None, :] == values[:, None]).sum(axis=1)
    return 2 * below + equal + 1


def _freed(across: Iterable[str]) -> frozenset[str]:
    free: frozenset[str] = frozenset()
    for name in across:
        if name not in ACROSS:
            raise UsageError(f"compare: across {name!r}: one of {', '.join(ACROSS)}")
        free |= ACROSS[name]
    return free


def _conditions(record: Record) -> dict[str, Any]:
    device, runtime, harness = record["device"], record["runtime"], record["harness"]
    return {
        "model": record["artifact"]["name"],
        "target": record["artifact"]["target"],
        "device": device["id"],
        "device kind": device["kind"],
        **_flat(device["fingerprint"], "fingerprint"),
        "runtime": f"{runtime['name']} {runtime['version']}",
        "delegate": runtime["delegate"],
        "threads": record["threads"],
        "power mode": record["power_mode"],
        "harness": f"{harness['name']} {harness['version']}",
        "profile": record["profile"],
    }


def _flat(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key in sorted(value) for k, v in _flat(value[key], f"{name}.{key}").items()}
    return {name: value}


def _said(conditions: dict[str, Any], name: str) -> str:
    if name not in conditions:
        return "absent"
    value = conditions[name]
    return "none" if value is None else str(value)


def _notes(a: Record, b: Record, free: frozenset[str], noise: Noise) -> list[str]:
    notes = [f"across {text}" for text in differences(a, b) if text not in differences(a, b, free)]
    parts = [record["runtime"].get("partitions") for record in (a, b)]
    if parts[0] != parts[1]:
        notes.append(f"delegate partitions {parts[0]} and {parts[1]}")
    if a["artifact"]["sha256"] == b["artifact"]["sha256"]:
        notes.append("the same artifact twice")
    notes += dict.fromkeys(text for record in (a, b) if (text := _without_samples(record)))
    if not noise.of_device:
        notes.append(
            f"how much this device changes between runs is not known: {MIN_FREEDOM + 1} more stored runs "
            f"of one artifact under these conditions tell"
        )
    return notes


def _without_samples(record: Record) -> str | None:
    """What a record without raw samples cannot tell."""
    if record["samples_ns"]:
        return None
    if record["latency"].get("process_p50_ms"):
        return (
            f"{record['harness']['name']} gives no raw samples: compared are the medians it reports for each "
            f"process; a p99 with its interval needs samples"
        )
    return f"{record['run']} has neither raw samples nor medians of its processes: measure it again"


def _words(verdict: str, change: float, p: float | None, threshold: float, processes: tuple[int, int]) -> str:
    if p is None:
        return (
            f"not enough processes: {processes[0]} against {processes[1]}, at least {MIN_PROCESSES} a side "
            f"(p50 {change:+.1f} %)"
        )
    size = f"p50 {change:+.1f} % (called above {threshold:.1f} %), p = {p:.3f} (called below {ALPHA})"
    return f"{verdict}: {size}, {processes[0]} against {processes[1]} processes"
