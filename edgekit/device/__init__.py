"""Boards: an inventory of them, the way to each, what runs there, and what may be said about the figures.

    transport/    local, ssh, adb: run, push and pull; nothing of ours outlives the connection
    inventory     the user's devices.toml -> Device
    reservation   one user a board: a lock here and one there, and what is known of a board's health
    harness/      what measures on the board: our LiteRT and ONNX Runtime scripts, benchmark_model, trtexec...
    probe/        fingerprint, telemetry, clocks
    kinds         a kind of board is a small file in devices/ (edgekit_devices) that puts these together
    measure       files + a board + a profile -> Result
    host          files of any runtimes in turns on this machine, as a build measures them

In: model files and a bundle's manifest. Out: result.json with its raw samples. No torch, no graph.
"""
