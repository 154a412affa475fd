"""A producer in FUSES, then relu or relu6 -> one node with that activation.

After this every value in the graph is a tensor some runtime really stores. Does not fire when the value
before the activation is read elsewhere. An activation behind max-pooling moves before it:
max(relu(x)) = relu(max(x)).
"""

from __future__ import annotations

from edgekit.graph.ir import Graph, Node
from edgekit.graph.ops import ACTIVATIONS, FUSES
from edgekit.passes.rewrite import remove_nodes, sole_reader


def fuse_activation(graph: Graph) -> int:
    producers = graph.producers()
    counts = graph.use_counts()
    fused: set[Node] = set()
    for act in [n for n in graph.nodes if n.op in ACTIVATIONS]:
        assert act.inputs[0] is not None
        producer = producers.get(act.inputs[0])
        if producer is None or not sole_reader(counts, producer.output):
            continue
        if producer.op == "max_pool2d":
            pooled = producer.inputs[0]
            assert pooled is not None
            before = producers.get(pooled)
            if before is None or before.op not in FUSES or before.attrs.get("activation"):
                continue
            if not sole_reader(counts, pooled):
                continue
            before.attrs["activation"] = act.op
        elif producer.op in FUSES and not producer.attrs.get("activation"):
            producer.attrs["activation"] = act.op
        else:
            continue
        producer.outputs = [act.output]
        producers[act.output] = producer
        fused.add(act)
    remove_nodes(graph, fused)
    return len(fused)
