"""An NVIDIA Jetson over ssh: TensorRT or ONNX Runtime, tegrastats beside the measurement, jetson_clocks.

nvpmodel is asked and never set: setting it can want a reboot. Jetson Nano has no int8: use tensorrt-fp16.
"""

from edgekit.device.harness.script import LITERT, ONNXRUNTIME
from edgekit.device.harness.trtexec import TRTEXEC
from edgekit.device.kinds import Kind
from edgekit.device.probe import Probe, linux

FACTS = r"""
fact l4t "$(head -n 1 /etc/nv_tegra_release 2>/dev/null)"
fact power_mode "$(nvpmodel -q 2>/dev/null | sed -n 's/^NV Power Mode: *//p')"
"""
ONCE = "timeout 5 sh -c 'tegrastats --interval 200 2>/dev/null | head -n 1'"
UNDO = r"""
sudo -n jetson_clocks --store clocks >&2 && echo "sudo -n jetson_clocks --restore $PWD/clocks >/dev/null"
"""
LOCK = "sudo -n jetson_clocks && sudo -n jetson_clocks --show"

KIND = Kind(
    name="jetson",
    title="NVIDIA Jetson",
    transports=("ssh", "local"),
    harnesses=(TRTEXEC, ONNXRUNTIME, LITERT),
    probe=Probe(
        facts=(linux.FACTS, FACTS),
        sample=(linux.SAMPLE,),
        once=ONCE,
        stream="tegrastats --interval 2000",
        lock=LOCK,
        undo=UNDO,
    ),
    install={
        "trtexec": 'sudo apt install tensorrt; tools.trtexec = "/usr/src/tensorrt/bin/trtexec"',
        "onnxruntime": "python3 -m pip install onnxruntime-gpu from NVIDIA's index for this JetPack",
        "litert": "python3 -m pip install ai-edge-litert",
    },
    delegate={"trtexec": "tensorrt-int8", "onnxruntime": "cuda", "litert": "xnnpack"},
)
