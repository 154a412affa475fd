"""The inventory, the kinds, and the commands that use them."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from boards import Board, leftovers
from PIL import Image

from edgekit.bundle.check import read_manifest
from edgekit.data import Preprocessing
from edgekit.device import kinds
from edgekit.device.doctor import doctor
from edgekit.device.evaluation import slice_evaluation
from edgekit.device.harness import Runtime
from edgekit.device.harness.script import LITERT, ScriptHarness
from edgekit.device.inventory import Device, init_inventory, load_inventory
from edgekit.errors import UsageError

ROOT = Path(__file__).parents[2]
HEAD = "schema_version = 1\n"


def write(path: Path, text: str) -> Path:
    path.write_text(HEAD + text)
    return path


def edgekit(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from edgekit.cli.main import main; main()", *words]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)} | env
    )


def test_a_first_inventory_is_one_that_loads(tmp_path: Path) -> None:
    path = init_inventory(tmp_path / "devices.toml")
    assert list(load_inventory(path).devices) == ["host"]
    uncommented = "\n".join(
        line.removeprefix("# ") for line in path.read_text().splitlines() if not line.startswith("# Boards")
    )
    path.write_text(uncommented)
    boards = load_inventory(path)
    assert {d.kind for d in boards.devices.values()} == set(kinds.kinds())
    assert boards.devices["pi4-a"].limits.max_temperature_c == 75 and boards.devices["pi4-a"].clocks == "lock"
    with pytest.raises(UsageError, match="exists already"):
        init_inventory(path)


def test_without_a_file_there_is_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_DEVICES", str(tmp_path / "none.toml"))
    assert list(load_inventory().devices) == ["host"]
    with pytest.raises(UsageError, match=r"none.toml: cannot be read"):
        load_inventory(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[devices.a]\nkind = 'host'\ntransport = {type = 'local'}\nclock = 'lock'",
            r"'clock' is not a .* did you mean clocks",
        ),
        ("[devices.a]\ntransport = {type = 'local'}", "devices.a: 'kind' is a required property"),
        ("[devices.a]\nkind = 'x'\ntransport = {type = 'ssh'}", "devices.a.transport: not a transport"),
        ("[devices.a]\nkind = 'x'\ntransport = {type = 'ssh', host = '-oProxyCommand=x'}", "not a transport"),
        (
            "[devices.a]\nkind = 'x'\ntransport = {type = 'ssh', host = 'h', password = 'p'}",
            "not a transport",
        ),
        ("[devices.'../a']\nkind = 'x'\ntransport = {type = 'local'}", "does not match"),
        ("[devices.a]\nkind = 'x'\ntransport = {type = 'local'}\nbase = 'relative'", "devices.a.base"),
        ("[devices", "cannot be read"),
    ],
)
def test_an_inventory_that_cannot_be_right(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_inventory(write(tmp_path / "devices.toml", text))


def test_boards_are_chosen_by_name_and_tag(tmp_path: Path) -> None:
    row = "kind = 'host'\ntransport = {type = 'local'}\ntags = ['shelf']\n"
    boards = load_inventory(write(tmp_path / "d.toml", f"[devices.pi4-a]\n{row}[devices.pi4-b]\n{row}"))
    assert [d.id for d in boards.select(["pi4-b", "tag:shelf"])] == ["pi4-b", "pi4-a"]
    with pytest.raises(UsageError, match="did you mean pi4-a"):
        boards.select(["pi4a"])
    with pytest.raises(UsageError, match="no board has this tag"):
        boards.select(["tag:none"])


def test_others_register_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = "thirdparty_board"
    module = type(sys)("thirdparty_boards")
    module.KIND = kinds.Kind(mine, "mine", ("local",), (LITERT,), kinds.find_kind("host").probe)  # type: ignore[attr-defined]
    module.WRONG = object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "thirdparty_boards", module)

    def register(name: str, value: str) -> None:
        kinds.kinds.cache_clear()
        monkeypatch.setattr(kinds, "entry_points", lambda group: [EntryPoint(name, value, group)])

    try:
        register(mine, "thirdparty_boards:KIND")
        assert kinds.find_kind(mine).title == "mine" and kinds.find_kind("coral")
        with pytest.raises(UsageError, match="did you mean raspberry_pi"):
            kinds.find_kind("raspberrypi")
        register(mine, "thirdparty_boards:WRONG")
        with pytest.raises(UsageError, match=r"an edgekit.device.kinds.Kind of that name"):
            kinds.kinds()
        register("host", "thirdparty_boards:KIND")
        with pytest.raises(UsageError, match="host = thirdparty_boards:KIND"):
            kinds.kinds()
    finally:
        kinds.kinds.cache_clear()


def test_every_shipped_kind_is_an_entry_point() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][kinds.GROUP] == {
        name: f"edgekit_devices.{name}:KIND" for name in kinds.SHIPPED
    }


def test_kinds_import_only_the_device_package() -> None:
    for path in (ROOT / "devices").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert all(name.startswith("edgekit.device") for name in names), path


def test_doctor_says_what_is_missing_and_how_to_install_it(ssh: Board) -> None:
    board = Device("bare", "raspberry_pi", ssh.transport, python="/usr/bin/env", base=str(ssh.base))
    found = {finding.what: finding for finding in doctor(board)}
    assert found["connection"].ok and found["facts"].ok
    assert not found["litert"].ok and "pip install ai-edge-litert" in found["litert"].cure
    assert not found["benchmark_model"].ok and not found["a runtime"].ok and found["a runtime"].needed
    assert leftovers(ssh.base) == []


def test_doctor_names_a_missing_delegate(ssh: Board) -> None:
    board = Device("coral-a", "coral", ssh.transport, python=sys.executable, base=str(ssh.base))
    found = {finding.what: finding for finding in doctor(board)}
    assert "libedgetpu.so.1" in found["litert"].detail and "libedgetpu1-std" in found["litert"].cure


@pytest.mark.parametrize(
    ("runtime", "least", "ok"),
    [
        ("tflite-runtime 2.9.1", "2.10", False),
        ("tflite-runtime 2.9.1", "2.3", True),
        ("tflite-runtime 2.14.0", "2.10", True),
        ("ai-edge-litert 1.0.1", "2.10", True),
        ("tflite-runtime 2.9.1", None, True),
    ],
)
def test_doctor_says_when_a_runtime_is_too_old_for_a_model(
    runtime: str, least: str | None, ok: bool, local: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, version = runtime.split()
    monkeypatch.setattr(ScriptHarness, "check", lambda *_args: Runtime(name, version, "3.9"))
    board = Device("old", "raspberry_pi", local.transport, base=str(local.base), runtimes=("litert",))
    (found,) = [finding for finding in doctor(board, least) if finding.what == "litert"]
    assert found.ok == ok and runtime in found.detail
    assert ok or ("older than 2.10" in found.detail and 'min_runtime = "2.9.1"' in found.cure)


def test_the_commands(pi: Board, models: dict[str, Path], tmp_path: Path) -> None:
    transport = f"transport = {{type = 'ssh', host = 'board', config = '{pi.transport['config']}'}}"
    rows = f"{transport}\npython = '{sys.executable}'\nbase = '{pi.base}'\n"
    inventory = str(
        write(tmp_path / "devices.toml", f"[devices.pi4-a]\nkind = 'raspberry_pi'\ntags = ['shelf']\n{rows}")
    )
    listed = json.loads(edgekit("devices", "list", "--json", "--inventory", inventory).stdout)
    assert [(row["id"], row["kind"], row["held_by"], row["health"]) for row in listed] == [
        ("pi4-a", "raspberry_pi", None, "ok")
    ]
    facts = json.loads(edgekit("devices", "probe", "pi4-a", "--json", "--inventory", inventory).stdout)[
        "pi4-a"
    ]
    assert facts["facts"]["model"].startswith("Raspberry Pi 4") and facts["now"]["throttled"] == 0
    checked = edgekit("devices", "doctor", "--inventory", inventory)
    assert checked.returncode == 0 and "ok      litert           ai-edge-litert" in checked.stdout
    bundle = str(models["tflite-int8"].parent)
    done = edgekit(
        "bench",
        bundle,
        "--device",
        "tag:shelf",
        "--images",
        "8",
        "-o",
        str(tmp_path / "out"),
        "--inventory",
        inventory,
    )
    assert done.returncode == 0, done.stderr
    assert "pi4-a: valid, ai-edge-litert" in done.stdout and "answers 3/3 bit for bit" in done.stdout
    assert len(list((tmp_path / "out").glob("pi4-a-*.json"))) == 1
    (kept,) = json.loads(edgekit("history", "--json").stdout)
    assert (kept["device"]["id"], kept["artifact"]["target"]) == ("pi4-a", "tflite-int8")
    wrong = edgekit("bench", bundle, "--device", "pi5", "--inventory", inventory)
    assert wrong.returncode == 2 and wrong.stderr.startswith("edgekit: device 'pi5': not in")
    assert leftovers(pi.base) == []


def test_a_slice_of_the_evaluation_set_is_what_the_model_takes(models: dict[str, Path]) -> None:
    manifest = read_manifest(models["tflite-int8"].parent)
    settings = {
        "resolution": 32,
        "resize": 32,
        "interpolation": "bilinear",
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
    }
    steps = [{"step": "layout", "layout": "NHWC"}]
    trained = manifest | {
        "preprocessing": {"settings": settings, "steps": steps},
        "weights": {"untrained": False},
        "labels": {"count": 24},
    }
    found = slice_evaluation(trained, 6)
    assert found is not None and found.labels is not None and len(found.labels) == 6
    (inputs,) = found.inputs
    assert inputs.shape == (6, 1, 32, 32, 3) and inputs.dtype == np.int8
    tensor = manifest["inputs"][0]
    values = (inputs.astype(np.float64) - tensor["zero_point"]) * tensor["scale"]
    assert -2.0 - tensor["scale"] <= values.min() < -1 and 1 < values.max() <= 2.0 + tensor["scale"]
    unknown = slice_evaluation(trained | {"weights": {"untrained": True}}, 6)
    assert unknown is not None and unknown.labels is None
    assert slice_evaluation(manifest, 6) is None


def test_labels_of_a_slice_are_the_models_outputs_by_name(tmp_path: Path) -> None:
    for name, grey in (("ant", 10), ("bee", 200)):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (grey,) * 3).save(tmp_path / "val" / name / "0.png")
    settings = Preprocessing(8, 8, "bilinear", (0.0,) * 3, (1.0,) * 3).to_dict()
    manifest = {
        "preprocessing": {"settings": settings, "steps": []},
        "recipe": {"data": {"source": f"imagefolder:{tmp_path}"}},
        "inputs": [{"scale": None, "dtype": "float32"}],
        "weights": {"untrained": False},
        "labels": {"file": "labels.txt", "count": 3},
    }
    cases = (("bee\ncat\nant\n", [2, 0]), ("bee\nant\ndog\n", [1, 0]), ("cat\ndog\nant\n", None))
    for names, wanted in cases:
        (tmp_path / "labels.txt").write_text(names)
        found = slice_evaluation(manifest, 2, tmp_path)
        assert found is not None
        bright = found.inputs[0].reshape(2, -1).mean(1) > 0.5
        labels = None if found.labels is None else found.labels[np.argsort(bright)].tolist()
        assert labels == wanted


def test_a_board_is_held_until_interrupted(pi: Board, tmp_path: Path) -> None:
    transport = f"transport = {{type = 'ssh', host = 'board', config = '{pi.transport['config']}'}}"
    text = f"[devices.pi4-a]\nkind = 'raspberry_pi'\n{transport}\nbase = '{pi.base}'\n"
    inventory = str(write(tmp_path / "devices.toml", text))
    command = [sys.executable, "-c", "from edgekit.cli.main import main; main()", "devices", "lock", "pi4-a"]
    holder = subprocess.Popen(
        [*command, "--inventory", inventory],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )
    assert holder.stdout is not None and holder.stdout.readline() == "pi4-a: held\n"
    refused = edgekit("devices", "unlock", "pi4-a", "--inventory", inventory)
    assert refused.returncode == 2 and "--force to end that run" in refused.stderr
    listed = json.loads(edgekit("devices", "list", "--json", "--inventory", inventory).stdout)
    assert "run lock-" in listed[0]["held_by"]
    holder.send_signal(signal.SIGINT)
    assert holder.wait(20) == 130
    holder.stdout.close()
    until = time.monotonic() + 10
    while leftovers(pi.base) and time.monotonic() < until:
        time.sleep(0.1)
    assert edgekit("devices", "unlock", "pi4-a", "--inventory", inventory).stdout == "pi4-a: free\n"


def test_the_script_for_boards_is_old_python() -> None:
    """Boards have Python 3.7: the grammar of it, and nothing of edgekit."""
    source = (ROOT / "edgekit/device/harness/runner.py").read_text()
    tree = ast.parse(source, feature_version=(3, 7))
    names = [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not any(name.split(".")[0] in ("edgekit", "torch") for name in names)
