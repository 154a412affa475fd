"""The proofs: what a file is, where it runs, whether it computes the graph, and what that costs.

One module a question. How long a file takes is asked of a device: edgekit.device, the host like any board.

    runtime        images in, logits out, for .tflite, .onnx and .xml       (one face, three runtimes)
    audit          what is executed: operators, types, bytes, MACs          (from the file or its runtime)
    delegation     what the runtime takes over, what it leaves in float     (asked of the runtime)
    edgetpu        what edgetpu_compiler will map, why not the rest         (Coral's rules against the file)
    fidelity       every operator against its integer formula, in LSB       (LiteRT against graph)
    runtime_fidelity  every quantized value against the graph's meaning     (the others against graph)
    agreement      whether artifacts answer alike, and where they part      (runtime against runtime)
    layers         which layer's error reaches the outputs                  (runtime against float)
    drift          what the difference costs in answers                     (float logits against int8 logits)
    layer_times    where the milliseconds go                                (prefixes, profilers)
    cost           parameters, MACs, traffic, peak memory                   (from the graph alone)
    gates          all of that against thresholds
"""
