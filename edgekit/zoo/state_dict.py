"""State dicts inside whatever a training script saved: where they lie, which one is meant, under which names.

In: the object a checkpoint holds, and the names a module's own state has. Out: one state dict under these
names, and words for where it was found.

    nested       {"model": ...}, {"ema": {"module": ...}}, [state, optimizer]: every dict of tensors is found
    prefixed     "module.", "model.", "backbone.", "_orig_mod." ...: what stands before the module's own names
                 in most of the keys; keys without it (a criterion, metrics) belong to the training
    averaged     where raw and averaged weights both fit, the averaged ones are taken: trainers evaluate with
                 them (torchvision, timm, Ultralytics). FILE#ENTRY takes another
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

State = dict[str, torch.Tensor]

# The usual names of an entry, the likeliest first; entries of other names come after them.
NESTS = (
    *("state_dict_ema", "model_ema", "ema_model", "ema_state_dict", "ema", "params_ema", "swa", "averaged"),
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights"),
    *("params", "parameters", "generator", "backbone", "encoder"),
)
_AVERAGE = re.compile(r"(^|[._])(ema|swa|avg|averaged?|shadow|teacher)([._]|$)|_ema$|^ema", re.IGNORECASE)
# What wrappers put into the middle of names, too.
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_TRAINING = re.compile(
    r"^(criterion|loss|loss_fn|loss_func|losses|(train_|val_|test_|valid_)?(metrics?|acc|accuracy))(\.|$)"
)
_STATISTICS = ("running_mean", "running_var")
_COUNTER = "num_batches_tracked"  # checkpoints older than it lack it, and only training reads it
_DEPTH = 4


@dataclass(frozen=True)
class Found:
    """A dict of tensors in a checkpoint; `where` is the path of entries to it, "" at the top."""

    where: str
    state: State

    @property
    def average(self) -> bool:
        return bool(_AVERAGE.search(self.where))


@dataclass(frozen=True)
class Chosen:
    """The state that is meant, under the module's names, with words for its origin ("" for a plain file)."""

    state: State
    where: str


def find_states(held: Any) -> list[Found]:
    """Every dict of tensors by name in an object, the likeliest first; of equals the first in the file."""
    found = list(_walk(held, ()))
    order = {name: i for i, name in enumerate(NESTS)}

    def rank(one: Found) -> tuple[bool, bool, int]:
        names = one.where.split(".")
        return (bool(one.where), not one.average, min(order.get(name, len(order)) for name in names))

    return sorted(found, key=rank)


def _walk(held: Any, path: tuple[str, ...]) -> Iterator[Found]:
    if isinstance(held, nn.Module):
        held = held.state_dict()
    if isinstance(held, Mapping):
        items = [(k, v) for k, v in held.items() if isinstance(k, str)]
    elif isinstance(held, list | tuple):
        items = [(str(i), v) for i, v in enumerate(held)]
        if any(isinstance(v, torch.Tensor | np.ndarray) for _, v in items):
            return
    else:
        return
    tensors = {k: _tensor(v) for k, v in items if isinstance(v, torch.Tensor | np.ndarray)}
    if any(v.ndim > 1 for v in tensors.values()):
        state: State = OrderedDict(tensors)
        if hasattr(held, "_metadata"):
            state._metadata = held._metadata  # type: ignore[attr-defined]
        yield Found(".".join(path), state)
    if len(path) < _DEPTH:
        for key, value in items:
            if not key.startswith(("optim", "scheduler", "lr_scheduler")):
                yield from _walk(value, (*path, key))


def _tensor(value: torch.Tensor | np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value.detach()
    return tensor.float() if tensor.is_floating_point() else tensor


def entries(found: Sequence[Found]) -> list[str]:
    """The names by which FILE#ENTRY can choose: of entries, and of prefixes where one dict holds several."""
    names = [one.where for one in found if one.where]
    for one in found:
        heads = Counter(k.split(".", 1)[0] for k in one.state if "." in k)
        names += [head for head in heads if not one.where and _AVERAGE.search(head)]
    return list(dict.fromkeys(names))


def choose(found: Sequence[Found], known: set[str], entry: str = "") -> Chosen | None:
    """The state that fits `known` best, averaged before raw; None when `entry` names nothing.

    Args:
        found: as `find_states` gives them. known: the names of the module's own state.
        entry: the path of an entry, or a prefix of keys.
    """
    wanted = {name for name in known if not name.endswith(_COUNTER)}
    fits = [fit for one in found for fit in _fits(one, known, wanted)]
    if entry:
        fits = [f for f in fits if entry in (f.found.where, f.prefix, f.name) or _below(f, entry)]
    if not fits:
        return None
    fits = [_with_statistics(fit, fits, wanted) if fit.average else fit for fit in fits]
    # Whole ones first, of these averages, then whatever has most; `found` is in order of likelihood.
    best = min(fits, key=lambda f: (f.count < len(wanted), -f.count if f.count < len(wanted) else 0, f.raw))
    words = best.name
    others = [f for f in fits if f.average != best.average and f.count >= best.count]
    if others and not entry:
        words += f"], not [{others[0].name or 'the others'}"
    left = [f.name for f in fits if f.average and not best.average and 0 < f.count < best.count]
    if left:
        words += f"], not [{left[0]}: incomplete"
    return Chosen(best.state, words)


@dataclass(frozen=True)
class _Fit:
    """A found state under a module's names by leaving out one prefix; count: how many of them it has."""

    found: Found
    prefix: str
    state: State
    count: int
    note: str = ""

    @property
    def average(self) -> bool:
        return self.found.average or bool(_AVERAGE.search(self.prefix))

    @property
    def raw(self) -> bool:
        return not self.average

    @property
    def name(self) -> str:
        plain = self.prefix in ("", "module", "model", "module.model", "model.module")
        shown = "" if plain else f"{self.prefix}.*"
        return ": ".join(part for part in (self.found.where, shown) if part) + self.note


def _below(fit: _Fit, entry: str) -> bool:
    return f"{fit.found.where}.".startswith(f"{entry}.") or f"{fit.prefix}.".startswith(f"{entry}.")


def _fits(one: Found, known: set[str], wanted: set[str]) -> Iterator[_Fit]:
    """One way a prefix in turn, the one that explains most names first; without any it is as it stands."""
    keys = {_unwrapped(key, known): key for key in one.state}
    counts: Counter[str] = Counter()
    for key in keys:
        parts = key.split(".")
        for i in range(len(parts)):
            if ".".join(parts[i:]) in wanted:
                counts[".".join(parts[:i])] += 1
    if not counts:
        added = _added(keys, known)
        state = {f"{added}{k}": one.state[key] for k, key in keys.items()} if added else dict(one.state)
        yield _Fit(one, "", _state(state), sum(k in wanted for k in state))
        return
    most = counts.most_common(1)[0][1]
    for prefix, count in counts.most_common():
        if 2 * count <= most:
            break
        start = f"{prefix}." if prefix else ""
        taken = {k[len(start) :]: one.state[key] for k, key in keys.items() if k.startswith(start)}
        if prefix:
            missing = wanted - set(taken)
            taken |= _elsewhere(one.state, keys, start, missing)
        else:
            taken = {k: v for k, v in taken.items() if k in known or not _TRAINING.match(k)}
        state = _state(taken)
        if not prefix and hasattr(one.state, "_metadata"):
            state._metadata = one.state._metadata  # type: ignore[attr-defined]
        yield _Fit(one, prefix, state, sum(k in wanted for k in taken))


def _unwrapped(key: str, known: set[str]) -> str:
    return key if key in known else _WRAPPERS.sub("", key)


def _added(keys: Mapping[str, str], known: set[str]) -> str:
    """The prefix that the module's names have and the file's do not; "" when that is not the difference."""
    heads = {name.split(".", 1)[0] for name in known}
    if len(heads) != 1:
        return ""
    prefix = f"{heads.pop()}."
    return prefix if any(f"{prefix}{key}" in known for key in keys) else ""


def _elsewhere(state: State, keys: Mapping[str, str], start: str, missing: set[str]) -> State:
    """Names a prefix lacks and one other prefix has: a head beside a backbone. Empty unless it has all."""
    places: dict[str, State] = {}
    for plain, key in keys.items():
        for name in missing:
            if plain.endswith(f".{name}") and not plain.startswith(start):
                places.setdefault(plain[: -len(name)], {})[name] = state[key]
    whole = [held for held in places.values() if len(held) == len(missing)]
    return whole[0] if len(whole) == 1 and missing else {}


def _with_statistics(fit: _Fit, fits: Sequence[_Fit], wanted: set[str]) -> _Fit:
    """Averages of parameters alone, completed by the running statistics of the raw weights beside them."""
    missing = wanted - set(fit.state)
    if not missing or not all(name.endswith(_STATISTICS) for name in missing):
        return fit
    other = next((f for f in fits if f.raw and missing <= set(f.state)), None)
    if other is None:
        return fit
    state = OrderedDict(fit.state)
    state |= {name: other.state[name] for name in missing}
    note = f" with the running statistics of {other.name}"
    return _Fit(fit.found, fit.prefix, state, len(wanted & set(state)), note)


def _state(tensors: Mapping[str, torch.Tensor]) -> State:
    return OrderedDict((k, v) for k, v in tensors.items() if k != "n_averaged")
