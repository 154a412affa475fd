"""What a build may be told to make of a model before it is quantized: the recipe's [lite], [prune], [train];
[mixed], what is asked of its quantization; and [qat], how what calibration made is trained.

An absent section is a skipped step. On the command line a step is one word (`--prune macs=0.5`), read here
into the section's settings. Knows nothing of torch, like the recipe it belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from edgekit.errors import UsageError, did_you_mean
from edgekit.train import settings as train

LITE_STEPS = ("no-se", "relu6", "3x3")  # without a word; "fuse" pays on some devices only
LITE_KNOWN = (*LITE_STEPS, "fuse")
AUTO = "auto"
BUDGETS = ("keep", "macs", "params", "latency_ms")
LENGTHS = ("minutes", "steps", "epochs")
MINUTES = 20.0
DEMANDS = ("latency_ms", "ratio", "sqnr", "drop")
# Of each section the settings of which one is meant: one that is given takes the others' place.
EITHER = {
    "lite": frozenset({"recover", "recover_steps"}),
    "prune": frozenset(BUDGETS),
    "train": frozenset(LENGTHS),
    "qat": frozenset(LENGTHS),
    "mixed": frozenset(DEMANDS),
}
_PRUNE_FORMS = "0.5, macs=0.5, params=0.6, latency=3ms, latency=3ms@DEVICE or dead"
_AMOUNT = r"\s*([0-9]+(?:\.[0-9]+)?)\s*(min|minutes|steps)\s*"
_MIXED_FORMS = "latency=4ms, latency=4ms@DEVICE, latency=1.06x (of int8's), sqnr=30 or drop=0.002"
HOWS = ("auto", "light", "full")
_QAT_PART = re.compile(rf"{'|'.join(HOWS)}|(?:minutes|steps)=[0-9.]+|{_AMOUNT}")
_QAT_FORMS = "auto, light, full, minutes=20 or steps=500, with commas"
_TRAIN_FORMS = "FILE.py:FUNCTION, 20min, 500steps or nothing"


@dataclass(frozen=True)
class Lite:
    """Surgery towards what integer-only accelerators map.

    steps: which of "no-se", "relu6", "3x3", "fuse"; ("auto",) takes them by the milliseconds each wins
        for the accuracy it loses, until `max_drop` is spent.
    fixed: paths of modules whose form stays: a stem, a head.
    max_drop: accuracy that "auto" may lose, a fraction; None is what the gate asks, or 0.01.
    device: where "auto" counts milliseconds.
    recover: minutes of the processor in which the changed network learns the original's answers again, on
        the training split: block by block, then whole. None is none: the fits alone.
    recover_steps: the same length in steps, (by block, whole).
    """

    steps: tuple[str, ...] = LITE_STEPS
    fixed: tuple[str, ...] = ()
    max_drop: float | None = None
    device: str = "host"
    recover: float | None = None
    recover_steps: tuple[int, ...] = ()

    @property
    def recovers(self) -> bool:
        return self.recover is not None or bool(self.recover_steps)


@dataclass(frozen=True)
class Prune:
    """Channels to remove; exactly one budget, or `dead` with or without one.

    keep: share of every group's channels that stays. macs, params: of the original's, at most this share.
    latency_ms: of the int8 artifact on `device`. dead: channels that are zero for every input.
    score: what ranks channels. scope: whether groups compete with each other ("global") or lose alike.
    rounds: in how many goes. protect: names of groups that stay whole.
    refit: the next layers by least squares on the calibration images.
    """

    keep: float | None = None
    macs: float | None = None
    params: float | None = None
    latency_ms: float | None = None
    dead: bool = False
    device: str = "host"
    score: Literal["l1", "l2", "batch-norm", "taylor", "obs", "random"] = "obs"
    scope: Literal["global", "layer"] = "global"
    rounds: int = 1
    protect: tuple[str, ...] = ()
    refit: bool = True


@dataclass(frozen=True)
class Train(train.Settings):
    """Training of what the steps before left, with the original as its teacher: `edgekit.train.Settings` and

    function: FILE.py:FUNCTION of the user's own, in the place of the loop.
    images: of the training split, at most; so many are generated of a generated set.

    Without a length it is `MINUTES` of the processor.
    """

    function: str | None = None
    images: int = 8000

    def __post_init__(self) -> None:
        if all(getattr(self, name) is None for name in LENGTHS):
            object.__setattr__(self, "minutes", MINUTES)
        super().__post_init__()
        if self.images < 1:
            raise UsageError(f"train: images {self.images}: at least 1")


@dataclass(frozen=True)
class Mixed:
    """Precisions chosen by node for `tflite-int8`; exactly one demand.

    latency_ms: of the artifact on `device`; ratio: as a multiple of the int8 file's there. sqnr: dB of the
    outputs on calibration images that nothing was fitted to. drop: accuracy that may be lost, a fraction, on
    pictures of the training split.
    """

    latency_ms: float | None = None
    ratio: float | None = None
    sqnr: float | None = None
    drop: float | None = None
    device: str = "host"


@dataclass(frozen=True)
class Qat(Train):
    """Training of what calibration made, in the integers that ship.

    how: "light" (no labels, the float model as teacher, a fixed recipe of minutes), "full" (the settings of
        [train], by labels and the original), or "auto": light where the gates fail, full where they still do.
    rate: of "full", the highest, in steps of the weights' integers; biases and scales have fixed shares.
    freezes: of "full": a depthwise weight that turns back in more than this share of the steps stays where it
        is; 0 for never.
    light_steps, light_images: of "light". held_out: images that neither trains on, by which each is accepted.
    """

    how: Literal["auto", "light", "full"] = "auto"
    rate: float = 2e-2
    weight_decay: float = 0.0
    ema: float = 100.0
    freezes: float = 0.02
    light_steps: int = 160
    light_images: int = 480
    held_out: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("light_steps", "light_images", "held_out"):
            if getattr(self, name) < 1:
                raise UsageError(f"[qat] {name} {getattr(self, name)}: at least 1")
        if not 0 <= self.freezes <= 1:
            raise UsageError(f"[qat] freezes {self.freezes}: from 0 to 1")


Settings = Lite | Prune | Train | Mixed


def check(settings: Settings, where: str) -> None:
    """Raises: UsageError where single settings are right and not together, or out of range."""
    _CHECKS[type(settings)](settings, where)


def _check_lite(settings: Lite, where: str) -> None:
    known = (*LITE_KNOWN, AUTO)
    for name in settings.steps:
        if name not in known:
            raise UsageError(
                f"{where}: [lite] steps: {name!r}: of {', '.join(known)}{did_you_mean(name, known)}"
            )
    if not settings.steps or (AUTO in settings.steps and len(settings.steps) > 1):
        raise UsageError(
            f"{where}: [lite] steps = {list(settings.steps)}: {', '.join(LITE_KNOWN)}, or auto alone"
        )
    if settings.max_drop is not None and not 0 <= settings.max_drop < 1:
        raise UsageError(f"{where}: [lite] max_drop = {settings.max_drop:g}: a fraction, from 0 to under 1")
    if settings.recover is not None and not settings.recover > 0:
        raise UsageError(f"{where}: [lite] recover = {settings.recover:g}: minutes, more than 0")
    steps = settings.recover_steps
    if steps and (len(steps) != 2 or steps[0] < 0 or steps[1] < 1 or AUTO in settings.steps):
        raise UsageError(
            f"{where}: [lite] recover_steps = {list(steps)}: steps by block, steps of the whole; not of auto"
        )
    if steps and settings.recover is not None:
        raise UsageError(f"{where}: [lite] recover and recover_steps: one of them")


def _check_prune(settings: Prune, where: str) -> None:
    given = {name: getattr(settings, name) for name in BUDGETS if getattr(settings, name) is not None}
    if len(given) > 1 or not (given or settings.dead):
        said = ", ".join(given) or "nothing"
        raise UsageError(f"{where}: [prune] {said}: one of {', '.join(BUDGETS)}, or dead = true")
    for name, value in given.items():
        if name == "latency_ms":
            if not value > 0:
                raise UsageError(f"{where}: [prune] latency_ms = {value:g}: more than 0")
        elif not 0 < value <= 1:
            raise UsageError(f"{where}: [prune] {name} = {value:g}: a share, above 0 and at most 1")
    if settings.rounds < 1:
        raise UsageError(f"{where}: [prune] rounds = {settings.rounds}: at least 1")


def _check_mixed(settings: Mixed, where: str) -> None:
    given = {name: getattr(settings, name) for name in DEMANDS if getattr(settings, name) is not None}
    if len(given) != 1:
        said = ", ".join(given) or "nothing"
        raise UsageError(f"{where}: [mixed] {said}: one of {', '.join(DEMANDS)}")
    for name, value in given.items():
        if name in ("latency_ms", "ratio") and not value > 0:
            raise UsageError(f"{where}: [mixed] {name} = {value:g}: more than 0")
        if name == "drop" and not 0 <= value < 1:
            raise UsageError(f"{where}: [mixed] drop = {value:g}: a fraction, from 0 to under 1")


_CHECKS: dict[type, Callable[[Any, str], None]] = {
    Lite: _check_lite,
    Prune: _check_prune,
    Mixed: _check_mixed,
    Train: lambda settings, where: None,  # checked when it is made
    Qat: lambda settings, where: None,
}


def is_lite(word: str) -> bool:
    """Whether a word of the command line can only be a value of `--lite`."""
    return bool(word) and set(word.split(",")) <= {*LITE_KNOWN, AUTO}


def is_train(word: str) -> bool:
    """Whether a word of the command line can only be a value of `--train`."""
    return ".py:" in word or re.fullmatch(_AMOUNT, word) is not None


def is_qat(word: str) -> bool:
    """Whether a word of the command line can only be a value of `--qat`."""
    return bool(word) and all(_QAT_PART.fullmatch(part) for part in word.split(","))


def qat_of(text: str) -> dict[str, Any]:
    """[qat] of what stands behind `--qat=`: auto, light, full, and a length of the latter, with commas."""
    found: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        if not _QAT_PART.fullmatch(part):
            raise UsageError(f"--qat={text}: {part!r}: {_QAT_FORMS}")
        if part in HOWS:
            found["how"] = part
            continue
        name, equals, number = part.partition("=")
        amount = f"{number}{name}" if equals else part
        try:
            found |= train_of(amount)
        except UsageError as error:
            raise UsageError(f"--qat={text}: {part!r}: {_QAT_FORMS}") from error
    if found.keys() & set(LENGTHS):
        found.setdefault("how", "full")
    return found


def lite_of(text: str) -> dict[str, Any]:
    """[lite] of what stands behind `--lite=`: nothing, auto, or steps with commas."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    return {"steps": names} if names else {"steps": list(LITE_STEPS)}


def recover_of(text: str) -> dict[str, Any]:
    """[lite] of what stands behind `--recover`: minutes."""
    match = re.fullmatch(_AMOUNT, text)
    if match is None or match.group(2) == "steps":
        raise UsageError(f"--recover {text}: minutes, as in 15min")
    return {"recover": float(match.group(1))}


def prune_of(text: str) -> dict[str, Any]:
    """[prune] of what stands behind `--prune`: budgets and `dead`, with commas."""
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        if name == "dead" and not value:
            found["dead"] = True
            continue
        if not value:
            name, value = "keep", name
        if name == "latency":
            found |= _latency(value, f"--prune {text}", _PRUNE_FORMS)
        elif name in ("keep", "macs", "params"):
            found[name] = _number(value, f"--prune {text}", _PRUNE_FORMS)
        else:
            raise UsageError(f"--prune {text}: {name!r}: {_PRUNE_FORMS}")
    return found


def mixed_of(text: str) -> dict[str, Any]:
    """[mixed] of what stands behind `--mixed`: one demand."""
    said = f"--mixed {text}"
    name, _, value = text.strip().partition("=")
    if name == "latency" and (match := re.fullmatch(r"\s*([0-9.]+)\s*x\s*(?:@(.+))?", value)):
        device = {"device": match.group(2)} if match.group(2) else {}
        return {"ratio": _number(match.group(1), said, _MIXED_FORMS)} | device
    if name == "latency":
        return _latency(value, said, _MIXED_FORMS)
    if name not in ("sqnr", "drop"):
        raise UsageError(f"{said}: {_MIXED_FORMS}")
    return {name: _number(value, said, _MIXED_FORMS)}


def _latency(value: str, text: str, forms: str) -> dict[str, Any]:
    said, at, device = value.partition("@")
    match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*ms\s*", said)
    if match is None or (at and not device):
        raise UsageError(f"{text}: {forms}")
    return {"latency_ms": _number(match.group(1), text, forms)} | ({"device": device} if device else {})


def _number(value: str, text: str, forms: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UsageError(f"{text}: {value!r} is not a number: {forms}") from None


def train_of(text: str) -> dict[str, Any]:
    """[train] of what stands behind `--train`: a function of the user's, minutes or steps."""
    if not text:
        return {}
    if ".py:" in text:
        return {"function": text}
    match = re.fullmatch(_AMOUNT, text)
    if match is None:
        raise UsageError(f"--train {text}: {_TRAIN_FORMS}")
    if match.group(2) != "steps":
        return {"minutes": float(match.group(1))}
    if "." in match.group(1):
        raise UsageError(f"--train {text}: a whole number of steps: {_TRAIN_FORMS}")
    return {"steps": int(match.group(1))}
