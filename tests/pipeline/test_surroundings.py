"""Disks that fill, names that are too long or no UTF-8, users without a home, terminals' encodings."""

import io
import os
import pwd
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
from small_model import NET

from edgekit.bundle import check_bundle
from edgekit.cli import main as cli
from edgekit.errors import StoreError
from edgekit.files import default_root, refuse_unwritable, storage_errors, write_atomic

FEW = ["--calibration", 8, "--evaluation", 40, "--profile", "fast", "--latency", "off"]


@pytest.fixture(scope="module")
def built(shared_cache, folder, tmp_path_factory):
    """A finished build, to print again."""
    out = tmp_path_factory.mktemp("built") / "out"
    arguments = ["build", NET, "--data", f"imagefolder:{folder}", "--out", out, "--cache", shared_cache, *FEW]
    before = sys.argv
    sys.argv = ["edgekit", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as stop:
        assert not stop.code
    finally:
        sys.argv = before
    return out


@contextmanager
def _small_disk(place, kilobytes):
    """A file system of its own of so many kilobytes, where that is allowed."""
    place.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
    if mount is None or subprocess.run([mount, *options], capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextmanager
def _largest_file(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _refusal(edgekit, *arguments):
    code, text, err = edgekit(*arguments)
    lines = [line for line in err.splitlines() if line.startswith("edgekit: ")]
    assert code == 2, text + err
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


@pytest.mark.parametrize("kilobytes", [8, 24, 64])
def test_a_disk_that_fills_under_the_cache(edgekit, folder, tmp_path, kilobytes):
    out = tmp_path / "out"
    with _small_disk(tmp_path / "disk", kilobytes) as disk:
        line = _refusal(
            edgekit, "build", NET, "--data", f"imagefolder:{folder}", "--out", out, "--cache", disk, *FEW
        )
        left = [path for path in disk.glob("*/.*") if path.parent.name != ".leases"]
    assert "the disk is full" in line
    assert not out.exists()
    assert not left


@pytest.mark.parametrize("kilobytes", [8, 60])
def test_a_disk_that_fills_under_the_bundle(edgekit, cache, folder, built, tmp_path, kilobytes):
    with _small_disk(tmp_path / "disk", kilobytes) as disk:
        line = _refusal(edgekit, "build", NET, "--data", f"imagefolder:{folder}", "--out", disk / "out", *FEW)
        assert not (disk / "out" / "tflite-int8").exists()
        assert not list(disk.rglob(".*"))
    assert "the disk is full" in line


@pytest.mark.parametrize("size", [1000, 5000])
def test_files_that_may_not_grow(edgekit, folder, tmp_path, size):
    out, root = tmp_path / "out", tmp_path / "cache"
    with _largest_file(size):
        line = _refusal(
            edgekit, "build", NET, "--data", f"imagefolder:{folder}", "--out", out, "--cache", root, *FEW
        )
    assert "ulimit -f" in line
    assert not out.exists()
    assert not list(root.glob("[a-z]*/.*"))


@pytest.mark.parametrize("writer", ["safetensors", "numpy", "python", "atomic"])
@pytest.mark.parametrize("how", ["full", "limited"])
def test_native_writers(tmp_path, writer, how):
    import numpy as np
    import torch
    from safetensors.torch import save_file

    path = tmp_path / "disk" / "file"
    write = {
        "safetensors": lambda: save_file({"a": torch.zeros(100_000)}, path),
        "numpy": lambda: np.save(path.with_suffix(".npy"), np.zeros(100_000)),
        "python": lambda: path.write_bytes(bytes(400_000)),
        "atomic": lambda: write_atomic(path, bytes(400_000)),
    }[writer]
    room = _small_disk(path.parent, 64) if how == "full" else _largest_file(4096)
    with room:
        path.parent.mkdir(exist_ok=True)
        words = "the disk is full" if how == "full" else "ulimit -f"
        with pytest.raises(StoreError, match=words), storage_errors(path.parent):
            write()
        assert writer != "atomic" or not list(path.parent.iterdir())


def test_errors_that_are_not_the_disks_stay_themselves(tmp_path):
    for error in (RuntimeError("a bug"), ValueError("3 requested"), OSError("no number"), KeyError("x")):
        with pytest.raises(type(error)), storage_errors(tmp_path):
            raise error


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("n" * 256, "the name is too long"),
        ("n" * 245, "the name is too long"),
        ("file/below", "a file is in the way"),
        ("/dev/full/out", "a file is in the way"),
        ("/proc/out", "no permission|read-only|/proc"),
    ],
)
def test_places_that_cannot_be_written_are_refused_before_any_work(edgekit, cache, tmp_path, out, words):
    import re

    (tmp_path / "file").write_text("")
    line = _refusal(edgekit, "build", NET, "--out", tmp_path / out, *FEW)
    assert re.search(words, line)


def test_a_place_without_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(StoreError, match="no permission to write"):
        refuse_unwritable(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """A user whom neither $HOME nor passwd knows."""

    def unknown(_uid):
        raise KeyError("getpwuid(): uid not found")

    for name in ("HOME", "EDGEKIT_CACHE", "XDG_CACHE_HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_user_without_a_home(edgekit, homeless, folder):
    out = homeless / "out"
    code, _, err = edgekit("build", NET, "--data", f"imagefolder:{folder}", "--out", out, *FEW)
    assert code == 0, err
    stand_in = homeless / f"home-{os.getuid()}"
    assert default_root() == stand_in / ".cache" / "edgekit"
    assert (default_root() / "quantize").is_dir()
    assert stand_in.stat().st_mode & 0o777 == 0o700
    said = [line for line in err.splitlines() if "no home directory" in line]
    assert said == [f"no home directory: results are kept in {default_root()}, or --cache"]
    assert edgekit("models", "mobilenet_v2")[0] == 0
    assert edgekit("history", "--help")[0] == 0
    assert _refusal(edgekit, "build", "~nobody_of_that_name/net.py:net", "--out", homeless / "x")


def test_a_stand_in_for_a_home_that_others_may_write(homeless):
    place = homeless / f"home-{os.getuid()}"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(StoreError, match="someone else's"):
        default_root()
    place.rmdir()
    place.symlink_to(homeless)
    with pytest.raises(StoreError, match="someone else's"):
        default_root()


@contextmanager
def _streams(monkeypatch, encoding):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for _ in range(2))
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", err)
        yield out, err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_a_build_is_printed_in_any_encoding(monkeypatch, cache, folder, built, tmp_path, encoding):
    for command in (
        ["build", NET, "--data", f"imagefolder:{folder}", "--out", tmp_path / "out", *FEW],
        ["report", built],
        ["inspect", built],
        ["models", "mobilenet_v2"],
    ):
        monkeypatch.setattr(sys, "argv", ["edgekit", *map(str, command)])
        with _streams(monkeypatch, encoding) as (out, err):
            code = 0
            try:
                cli.main()
            except SystemExit as stop:
                code = stop.code or 0
        text = out.buffer.getvalue().decode(encoding)
        assert code == 0, err.buffer.getvalue()
        if command[0] in ("build", "report"):
            assert ("✓  fidelity" if encoding == "utf-8" else "+  fidelity") in text


def test_names_that_are_not_utf8(edgekit, folder, tmp_path, monkeypatch):
    place = tmp_path / os.fsdecode(b"caf\xe9")
    (place / "set").mkdir(parents=True)
    shutil.copy(NET.rpartition(":")[0], place / os.fsdecode(b"n\xe8t.py"))
    for split in ("train", "val"):
        for name, new in (("amber", b"amber"), ("blue", b"bl\xfc"), ("cyan", b"cyan"), ("dun", b"dun")):
            (place / "set" / split).mkdir(exist_ok=True)
            (place / "set" / split / os.fsdecode(new)).symlink_to(folder / name)
    code, text, err = edgekit(
        "build", f"{place / os.fsdecode(bytes(b'n' + bytes([0xE8]) + b't.py'))}:net", "--out", place / "out",
        "--data", f"imagefolder:{place / 'set'}", "--cache", tmp_path / "cache", *FEW,
        "--target", "tflite-int8", "--target", "onnx-int8", "--target", "openvino-int8",
    )  # fmt: skip
    assert code in (0, 1), err
    assert "Traceback" not in err
    assert "\\xe9" in text or "\ufffd" in text or "\udce9" in text
    bundle = place / "out" / "tflite-int8"
    assert (bundle / "labels.txt").read_bytes().decode() == "amber\nbl\\udcfc\ncyan\ndun\n"
    assert check_bundle(bundle).ok
    assert (place / "out" / "report.html").read_bytes().decode()
    for command in ("report", "inspect"):
        code, _, err = edgekit(command, place / "out")
        assert code == 0, err
    line = _refusal(edgekit, "build", NET, "--cache", place / "cache", *FEW)
    assert "not UTF-8" in line


def test_the_command_without_a_path_to_it():
    """`python -m edgekit` is the command, and loads no more than it."""
    code = "import runpy, sys; sys.argv = ['edgekit', '--help']"
    code += "\ntry: runpy.run_module('edgekit', run_name='__main__')"
    code += "\nexcept SystemExit as stop: assert not stop.code\nassert 'torch' not in sys.modules"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not asked.returncode and "build" in asked.stdout, asked.stderr


def test_help_names_every_target_and_kind_of_model(edgekit, monkeypatch):
    from edgekit.targets import TARGETS

    monkeypatch.setenv("COLUMNS", "80")
    text = edgekit("build", "--help")[1]
    words = text.split()
    assert all(name in words for name in TARGETS)
    assert all(kind in text for kind in (".onnx", ".pt2", "FILE.py:FUNCTION", "timm:NAME", "tv:NAME"))
    assert max(map(len, text.splitlines()[1:])) <= 80


def test_the_catalogue_keeps_its_columns(edgekit, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = edgekit("models")[1].splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    start = lines[0].index("source")
    rows = [line for line in lines[1:] if line[start:].strip()]
    assert all(line[start - 1] == " " and line[start:].startswith(("torchvision", "timm")) for line in rows)
    monkeypatch.delenv("COLUMNS")
    whole = edgekit("models", "*in12k*")[1].splitlines() or edgekit("models")[1].splitlines()
    assert all(len(line.split()) >= 6 for line in whole)
