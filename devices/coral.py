"""A Coral Edge TPU, USB or on its board, over ssh: LiteRT or tflite-runtime with libedgetpu.

Neither libedgetpu nor the compiler is in Debian or on PyPI, and PyPI's `pycoral` is an unrelated package.
"""

from edgekit.device.harness.script import LITERT
from edgekit.device.kinds import Kind
from edgekit.device.probe import Probe, linux

FACTS = r"""
fact libedgetpu "$(ls /usr/lib/*/libedgetpu.so.1.* /usr/lib/libedgetpu.so.1.* 2>/dev/null | head -n 1)"
usb=$(lsusb 2>/dev/null | sed -n 's/.*ID \(1a6e:089a\|18d1:9302\).*/usb \1/p')
fact edgetpu "$(ls /dev/apex_0 2>/dev/null || echo "$usb")"
"""
SAMPLE = r"""
IFS= read -r value 2>/dev/null </sys/class/apex/apex_0/temp && echo "temperature $value edgetpu"
"""

KIND = Kind(
    name="coral",
    title="Coral Edge TPU",
    transports=("ssh", "local"),
    harnesses=(LITERT,),
    probe=Probe(facts=(linux.FACTS, FACTS), sample=(linux.SAMPLE, SAMPLE), lock=linux.LOCK, undo=linux.UNDO),
    install={
        "litert": "python3 -m pip install tflite-runtime (or ai-edge-litert); libedgetpu1-std from Coral's "
        "own package repository, see coral.ai/docs/setup",
    },
    delegate={"litert": "libedgetpu.so.1"},
    compiled={
        "libedgetpu.so.1": (
            b"edgetpu-custom-op",
            "it runs on the processor: edgetpu_compiler makes the file for the Edge TPU (`edgekit check` "
            "says how much of it), --delegate xnnpack measures the processor",
        )
    },
)
