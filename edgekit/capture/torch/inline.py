"""Regions that torch exports as one call, autocast and gradient switches, put back where they were called.

Enters: an ExportedProgram. Leaves: the same program, its graph without them; what runs is the same.
"""

from __future__ import annotations

import operator

import torch
from torch import fx

from edgekit.errors import CaptureError

# higher-order operator -> how many of its arguments come before the region's module
_REGIONS = {"wrap_with_autocast": 4, "wrap_with_set_grad_enabled": 1}


def inline_regions(program: torch.export.ExportedProgram) -> None:
    """Raises: CaptureError for an autocast region in half precision: the graph computes in float32."""
    module = program.graph_module
    while calls := [node for node in module.graph.nodes if _settings(node) is not None]:
        for node in calls:
            _inline(module, node)
    module.graph.lint()
    module.recompile()


def _settings(node: fx.Node) -> int | None:
    if node.op != "call_function":
        return None
    return _REGIONS.get(getattr(node.target, "__name__", ""))


def _inline(module: fx.GraphModule, call: fx.Node) -> None:
    before = _settings(call)
    assert before is not None
    if before == 4 and call.args[2]:
        dtype = str(call.args[1] or "half precision").removeprefix("torch.")
        raise CaptureError(
            f"[capture] the model computes under autocast in {dtype}: float32, with autocast left to training"
        )
    region = call.args[before]
    assert isinstance(region, fx.Node)
    prefix = str(region.target)
    body = operator.attrgetter(prefix)(module)
    given = iter(call.args[before + 1 :])
    env: dict[fx.Node, fx.Node] = {}
    results: object = ()
    with module.graph.inserting_before(call):
        for node in body.graph.nodes:
            if node.op == "placeholder":
                env[node] = next(given)  # type: ignore[assignment]
            elif node.op == "output":
                results = fx.node.map_arg(node.args[0], env.__getitem__)
            else:
                env[node] = module.graph.node_copy(node, env.__getitem__)
                if node.op == "get_attr":
                    env[node].target = f"{prefix}.{node.target}"
    for user in list(call.users):
        if user.target is operator.getitem and isinstance(results, list | tuple):
            user.replace_all_uses_with(results[user.args[1]])  # type: ignore[index]
            module.graph.erase_node(user)
    if call.users:
        assert isinstance(results, fx.Node)
        call.replace_all_uses_with(results)
    module.graph.erase_node(call)
