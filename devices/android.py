"""An Android phone over adb: benchmark_model, or our script where a Python is installed (Termux)."""

from edgekit.device.harness.benchmark_model import BENCHMARK_MODEL
from edgekit.device.harness.script import LITERT, ONNXRUNTIME
from edgekit.device.kinds import Kind
from edgekit.device.probe import Probe, linux

FACTS = r"""
fact model "$(getprop ro.product.model 2>/dev/null)"
fact platform "$(getprop ro.board.platform 2>/dev/null)"
fact build "$(getprop ro.build.fingerprint 2>/dev/null)"
fact power_mode "$(settings get global low_power 2>/dev/null | sed 's/^/low power /')"
"""
SAMPLE = (
    "dumpsys thermalservice 2>/dev/null | sed -n 's/^[[:space:]]*//; /^Thermal Status:/p; /^Temperature{/p'"
)

KIND = Kind(
    name="android",
    title="Android",
    transports=("adb",),
    harnesses=(BENCHMARK_MODEL, LITERT, ONNXRUNTIME),
    probe=Probe(facts=(linux.FACTS, FACTS), sample=(linux.SAMPLE, SAMPLE)),
    base="/data/local/tmp",
    install={
        "benchmark_model": "adb push a build of LiteRT's benchmark_model to /data/local/tmp, chmod 755; "
        "its path as tools.benchmark_model",
        "litert": "a Python with ai-edge-litert or tflite-runtime (Termux); its path as python",
        "onnxruntime": "a Python with onnxruntime (Termux); its path as python",
    },
    delegate={"benchmark_model": "xnnpack", "litert": "xnnpack", "onnxruntime": "cpu"},
)
