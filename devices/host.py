"""This machine."""

from edgekit.device.harness.benchmark_app import BENCHMARK_APP
from edgekit.device.harness.script import LITERT, ONNXRUNTIME, OPENVINO
from edgekit.device.kinds import Kind
from edgekit.device.probe import Probe, linux

KIND = Kind(
    name="host",
    title="this machine",
    transports=("local",),
    harnesses=(LITERT, ONNXRUNTIME, OPENVINO, BENCHMARK_APP),
    probe=Probe(facts=(linux.FACTS,), sample=(linux.SAMPLE,), lock=linux.LOCK, undo=linux.UNDO),
    install={
        "litert": "pip install ai-edge-litert",
        "onnxruntime": "pip install onnxruntime",
        "openvino": "pip install openvino",
        "benchmark_app": "pip install openvino",
    },
    delegate={"litert": "xnnpack", "onnxruntime": "cpu", "openvino": "CPU", "benchmark_app": "CPU"},
)
