"""What tools print -> figures: transcripts of several versions of each, and logs that end badly."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgekit.device.harness.benchmark_app import parse_benchmark_app
from edgekit.device.harness.benchmark_model import parse_benchmark_model
from edgekit.device.harness.edgetpu_compiler import parse_edgetpu_compiler
from edgekit.device.harness.trtexec import parse_trtexec, parse_version
from edgekit.device.probe import Sample
from edgekit.device.probe.telemetry import parse_telemetry, throttle_words
from edgekit.device.probe.validity import telemetry_reasons
from edgekit.errors import DeviceJobError

TRANSCRIPTS = Path(__file__).parent / "transcripts"


def text(name: str) -> str:
    return (TRANSCRIPTS / f"{name}.txt").read_text()


def test_benchmark_model() -> None:
    run = parse_benchmark_model(text("benchmark_model"))
    assert run.summary_ms == {"p50": 42.405, "p95": 42.729, "mean": 42.4354} and run.count == 24
    assert (run.delegate, run.partitions) == ("xnnpack", 33)
    assert (run.init_ns, run.first_ns) == (143_669_000, 72_635_000)
    assert run.memory_bytes == int(27.5859 * 2**20) and run.samples_ns is None and run.notes == []


def test_benchmark_model_of_an_old_build() -> None:
    """No INFO prefix, no percentiles, numbers with exponents, another memory line, no delegate."""
    run = parse_benchmark_model(text("benchmark_model_old"))
    assert run.summary_ms == {"p50": 1041.76, "mean": 1041.76} and run.count == 50
    assert (run.delegate, run.partitions) == ("none", 0)
    assert run.notes == ["p50 is the mean: this benchmark_model prints no median"]
    assert run.memory_bytes == int(30.4922 * 2**20)


def test_benchmark_model_with_one_run() -> None:
    assert parse_benchmark_model("count=1 curr=1041760\n").summary_ms == {"p50": 1041.76}


def test_trtexec() -> None:
    run = parse_trtexec(text("trtexec_10_3"))
    assert run.summary_ms == {
        "min": 10.642,
        "max": 10.9861,
        "mean": 10.7971,
        "p50": 10.7972,
        "p90": 10.9329,
        "p95": 10.949,
        "p99": 10.9744,
    }
    assert run.count == 280 and run.notes[0].startswith("GPU compute time is unstable")
    assert parse_version(text("trtexec_10_3")) == "10.3.0"


def test_trtexec_8_4_has_only_p99() -> None:
    run = parse_trtexec(text("trtexec_8_4"))
    assert run.summary_ms["p99"] == 10.9744 and "p90" not in run.summary_ms and run.notes == []
    assert parse_version(text("trtexec_8_4")) == "8.4.1" and parse_version("no version") is None


def test_benchmark_app_in_microseconds_and_milliseconds() -> None:
    run = parse_benchmark_app(text("benchmark_app"))
    assert run.summary_ms["p50"] == pytest.approx(0.14946) and run.count == 66342
    assert run.init_ns == pytest.approx(77.01e6, abs=1) and run.first_ns == 1_620_000
    assert parse_benchmark_app("[ INFO ]    Median:  12.5 ms").summary_ms == {"p50": 12.5}


@pytest.mark.parametrize(
    ("parse", "log", "message"),
    [
        (parse_benchmark_model, "STARTING!\nLoaded model\n", "without statistics"),
        (parse_trtexec, "[E] Error[2]: out of memory\n&&&& FAILED TensorRT.trtexec", "out of memory"),
        (parse_trtexec, "[I] Latency: min = 1 ms", "ends early"),
        (parse_benchmark_app, "[ INFO ] Count: 3 iterations", "without figures"),
        (
            parse_edgetpu_compiler,
            "Edge TPU Compiler version 16.0\nModel not quantized",
            "Model not quantized: a fully 8-bit model",
        ),
        (parse_edgetpu_compiler, "ADD 1 Mapped to Edge TPU", "a log that names the compiler's version"),
    ],
)
def test_logs_that_end_badly(parse: object, log: str, message: str) -> None:
    with pytest.raises(DeviceJobError, match=message):
        parse(log)  # type: ignore[operator]


def test_edgetpu_compiler() -> None:
    found = parse_edgetpu_compiler(text("edgetpu_compiler"))
    assert (found.on_tpu, found.on_cpu, found.subgraphs, found.off_chip_bytes) == (264, 3, 1, 0)
    assert found.version == "16.0.384591198" and found.on_chip_bytes == round(4.21 * 2**20)
    assert found.reasons == [
        "1 CUSTOM: Operation is working on an unsupported data type",
        "2 RESHAPE: Tensor has unsupported rank (up to 3 innermost dimensions mapped)",
    ]


def test_edgetpu_compiler_when_everything_is_mapped() -> None:
    """The two lines with counts are absent then."""
    lines = text("edgetpu_compiler").splitlines()
    log = "\n".join(line for line in lines if "will run on" not in line and "CUSTOM" not in line)
    found = parse_edgetpu_compiler(
        log.replace("Tensor has unsupported rank", "Mapped to Edge TPU").replace(
            " (up to 3 innermost dimensions mapped)", ""
        )
    )
    assert (found.on_tpu, found.on_cpu, found.reasons) == (267, 0, [])


def test_edgetpu_compilers_log_file() -> None:
    """A table and nothing else; one operator may stand in it twice."""
    found = parse_edgetpu_compiler(text("edgetpu_operations"))
    assert (found.on_tpu, found.on_cpu, found.subgraphs) == (1, 3, None)
    assert found.on_chip_bytes is found.on_chip_left_bytes is found.off_chip_bytes is None
    twice = text("edgetpu_operations") + "CONV_2D  4  More than one subgraph is not supported\n"
    assert parse_edgetpu_compiler(twice).counts() == {
        "CONV_2D": (1, 4),
        "MEAN": (0, 1),
        "FULLY_CONNECTED": (0, 1),
        "HARD_SWISH": (0, 1),
    }


def test_edgetpu_compiler_that_was_not_asked_for_the_table() -> None:
    log = "\n".join(line for line in text("edgetpu_compiler").splitlines() if not re.search(r" \d+  ", line))
    found = parse_edgetpu_compiler(log)
    assert (found.on_tpu, found.on_cpu, found.counts()) == (264, 3, {})


def test_tegrastats() -> None:
    (sample,) = parse_telemetry("at 12.5\n" + text("tegrastats"))
    assert sample.temperature_c == {"cpu": 51.0, "gpu": 50.625, "tj": 51.781}
    assert sample.clock_mhz == {"cpu0": 1728.0, "cpu1": 1728.0}
    assert sample.power_mw == {"VDD_IN": 5832.0}
    assert sample.load_percent == {"cpu0": 100.0, "cpu1": 1.0, "gpu": 0.0}


def test_tegrastats_of_an_older_release() -> None:
    """No timestamp, no unit after the rails, and a PMIC that always says 100 degrees."""
    (sample,) = parse_telemetry(text("tegrastats_old") + "at 3\n")
    assert sample.at_s == 3 and sample.hottest_c == 42.5
    assert sample.power_mw == {"POM_5V_IN": 2570.0, "POM_5V_GPU": 80.0, "POM_5V_CPU": 604.0}
    assert sample.clock_mhz["gpu"] == 921


def test_vcgencmd() -> None:
    (sample,) = parse_telemetry("at 1\nthrottled=0x50005\ntemp=48.3'C\nfrequency(48)=600117184\n")
    assert sample.throttled == 0x50005 and sample.temperature_c == {"soc": 48.3}
    assert sample.clock_mhz["clock48"] == pytest.approx(600.117184)
    assert throttle_words(0x50005) == ["under-voltage", "throttled"]


def test_thermalservice() -> None:
    (sample,) = parse_telemetry("at 1\n" + text("thermalservice"))
    assert sample.thermal_status == 0 and sample.temperature_c == {"AP": 39.6, "BAT": 33.1}


def test_sysfs_rounds() -> None:
    rounds = [
        "at 1.5",
        "temperature 48312 cpu-thermal",
        "clock 600000 cpu0 ondemand",
        "odd",
        "at 3.5",
        "clock x",
    ]
    first, second = parse_telemetry("\n".join(rounds))
    assert first.as_dict() == {
        "at_s": 1.5,
        "temperature_c": {"cpu-thermal": 48.312},
        "clock_mhz": {"cpu0": 600.0},
        "governor": "ondemand",
    }
    assert second.at_s == 3.5 and parse_telemetry("") == []


CALM = Sample(0.0, {"soc": 50.0}, {"cpu0": 1800.0}, "performance", throttled=0x80000)


@pytest.mark.parametrize(
    ("during", "after", "reason"),
    [
        (CALM, CALM, None),  # a bit since boot that was there before
        (Sample(1.0, throttled=0x4), CALM, "throttled: throttled"),
        (CALM, Sample(2.0, throttled=0xA0000), "throttled: frequency capped"),
        (Sample(1.0, thermal_status=2), CALM, r"throttled: thermal status 2 \(moderate\)"),
        (Sample(1.0, governor="powersave"), CALM, "the governor changed: performance, powersave"),
        (Sample(1.0, clock_mhz={"cpu0": 1000.0}), CALM, "the clock of cpu0 fell from 1800 to 1000 MHz"),
        (Sample(1.0, {"soc": 85.5}), CALM, "85.5 C, above the limit of 80 C"),
    ],
)
def test_what_makes_a_measurement_invalid(during: Sample, after: Sample, reason: str | None) -> None:
    reasons = telemetry_reasons(CALM, [during], after, 80.0)
    if reason is None:
        assert reasons == []
    else:
        assert len(reasons) == 1 and re.fullmatch(reason, reasons[0])
