"""The proofs: what a file is, where it runs, whether it computes the graph, and what that costs.

One module a question; nothing is imported here, so that a fresh latency process stays small.

    audit          what the file is: operators, types, bytes, MACs          (from the file alone)
    delegation     what the delegate takes, what it leaves                  (asked of the runtime)
    fidelity       every operator against its integer formula, in LSB       (runtime against graph)
    layers         which layer's error reaches the outputs                  (runtime against float)
    drift          what the difference costs in answers                     (float logits against int8 logits)
    latency        how long it takes, beside the float file                 (fresh processes)
    cost           parameters, MACs, traffic, peak memory                   (from the graph alone)
    gates          all of that against thresholds
"""
