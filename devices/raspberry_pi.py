"""A Raspberry Pi over ssh: LiteRT, ONNX Runtime or OpenVINO on its processor, throttling by vcgencmd."""

from edgekit.device.harness.benchmark_model import BENCHMARK_MODEL
from edgekit.device.harness.script import LITERT, ONNXRUNTIME, OPENVINO
from edgekit.device.kinds import Kind
from edgekit.device.probe import Probe, linux

FACTS = r"""
fact firmware "$(vcgencmd version 2>/dev/null | tail -n 1)"
fact throttled "$(vcgencmd get_throttled 2>/dev/null)"
"""
SAMPLE = "vcgencmd get_throttled 2>/dev/null; vcgencmd measure_temp 2>/dev/null"

KIND = Kind(
    name="raspberry_pi",
    title="Raspberry Pi",
    transports=("ssh", "local"),
    harnesses=(LITERT, ONNXRUNTIME, OPENVINO, BENCHMARK_MODEL),
    probe=Probe(facts=(linux.FACTS, FACTS), sample=(linux.SAMPLE, SAMPLE), lock=linux.LOCK, undo=linux.UNDO),
    install={
        "litert": "python3 -m pip install ai-edge-litert   (Python 3.8 and older: tflite-runtime)",
        "onnxruntime": "python3 -m pip install onnxruntime",
        "openvino": "python3 -m pip install openvino   (a 64-bit system)",
        "benchmark_model": "a build of LiteRT's benchmark_model; its path as tools.benchmark_model",
    },
    delegate={
        "litert": "xnnpack",
        "onnxruntime": "cpu",
        "openvino": "CPU",
        "benchmark_model": "xnnpack",
    },
)
