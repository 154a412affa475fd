"""The store's limit: what was not used for longest goes, a running build is never robbed; the command."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgekit.errors import UsageError
from edgekit.pipeline.cache_limit import cache_limit
from edgekit.pipeline.store import Store, key_of

KB = 1000


def _put(store, name, kilobytes=10):
    return store.put(
        "stage", key_of(name=name), lambda folder: (folder / "data").write_bytes(b"x" * kilobytes * KB)
    )


def _age(entry, seconds):
    index = entry / "entry.json"
    then = index.stat().st_mtime - seconds
    os.utime(index, (then, then))


@contextmanager
def _process(script, *arguments):
    """A process of its own that says a word when it is ready and ends at a line."""
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


BUILD = """
    import sys
    from edgekit.pipeline.store import Store, key_of
    root, key = sys.argv[1:]
    store = Store(root, 15_000)
    with store.lease():
        assert store.find("stage", key)
        print("ready", flush=True)
        sys.stdin.readline()
        assert store.find("stage", key), "robbed"
    print("done", flush=True)
    """


def test_above_the_limit_goes_what_was_not_used_for_longest(tmp_path):
    store = Store(tmp_path, limit_bytes=35 * KB)
    entries = {name: _put(store, name) for name in "abc"}
    for age, name in enumerate("cba"):
        _age(entries[name], 100 + age)  # a is the oldest
    assert store.find("stage", key_of(name="a")) == entries["a"]  # and used again
    _put(store, "d")
    assert {name for name in "abcd" if store.find("stage", key_of(name=name))} == {"a", "c", "d"}
    assert sum(entry.size_bytes for entry in store.entries()) <= 35 * KB


def test_a_running_build_keeps_what_it_used_and_loses_nothing_to_another(tmp_path):
    store = Store(tmp_path)
    used, unused = _put(store, "used"), _put(store, "unused")
    _age(used, 200)
    _age(unused, 100)
    with _process(BUILD, tmp_path, used.name) as child:
        assert [entry.path for entry in store.prune(0)] == [unused]
        other = Store(tmp_path, limit_bytes=15 * KB)
        with other.lease():
            _put(other, "other")
            assert used.exists()
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "done\n"
        assert child.wait() == 0
    assert len(store.entries()) == 1  # the limit holds again once both have ended


def test_a_killed_build_leaves_no_lease(tmp_path):
    store = Store(tmp_path)
    entry = _put(store, "used")
    _age(entry, 100)
    with _process(BUILD, tmp_path, entry.name) as child:
        assert store.prune(0) == []
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert [gone.path for gone in store.prune(0)] == [entry]
    assert list((tmp_path / ".leases").iterdir()) == []


def test_what_a_killed_pruning_left_goes_with_the_next(tmp_path):
    store = Store(tmp_path)
    entry = _put(store, "a")
    left = tmp_path / ".pruned-1"
    shutil.copytree(entry, left / "stage-key")
    assert [found.path for found in store.entries()] == [entry]
    store.prune(10**9)
    assert not left.exists()
    assert entry.exists()


PUTTING = """
    import sys
    from edgekit.pipeline.store import Store, key_of
    root, name = sys.argv[1:]
    print("ready", flush=True)
    sys.stdin.readline()
    store = Store(root, 45_000)
    for turn in range(10):
        with store.lease():
            mine = []
            for i in range(4):
                key = key_of(name=name if i % 2 else "shared", turn=turn, i=i)
                write = lambda folder: (folder / "data").write_bytes(b"x" * 10_000)
                mine.append(store.find("stage", key) or store.put("stage", key, write))
            assert all((path / "data").stat().st_size == 10_000 for path in mine), "robbed"
    """


def test_two_builds_at_once_keep_their_own_and_the_limit_holds_after_them(tmp_path):
    with _process(PUTTING, tmp_path, "one") as one, _process(PUTTING, tmp_path, "two") as two:
        for child in (one, two):
            child.stdin.write("\n")
            child.stdin.flush()
        assert [one.wait(), two.wait()] == [0, 0]
    entries = Store(tmp_path).entries()
    assert 0 < sum(entry.size_bytes for entry in entries) <= 45 * KB
    assert all(json.loads((entry.path / "entry.json").read_text())["files"] for entry in entries)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("2GB", 2 * 10**9), ("1.5 gb", 1_500_000_000), ("500 MB", 5 * 10**8), ("1GiB", 2**30), ("7", 7)],
)
def test_a_limit_is_read_with_its_unit(tmp_path, text, wanted):
    assert cache_limit(text, tmp_path) == wanted


def test_the_limit_is_what_is_asked_then_the_variable_then_a_share_of_the_disk(tmp_path, monkeypatch):
    disk = shutil.disk_usage(tmp_path).total
    monkeypatch.delenv("EDGEKIT_CACHE_LIMIT", raising=False)
    assert cache_limit("auto", tmp_path / "not" / "there") == min(10**10, int(0.1 * disk))
    assert cache_limit("50%", tmp_path) == int(0.5 * disk)
    monkeypatch.setenv("EDGEKIT_CACHE_LIMIT", "3GB")
    assert cache_limit("auto", tmp_path) == 3 * 10**9
    assert cache_limit("1GB", tmp_path) == 10**9
    assert cache_limit("off", tmp_path) is None


@pytest.mark.parametrize("text", ["two", "2 G B", "-1GB", "5 parsecs", ""])
def test_what_is_no_size_is_one_line(tmp_path, text):
    with pytest.raises(UsageError, match=r'is no size: something like "2GB"'):
        cache_limit(text, tmp_path)


def test_the_command_shows_and_prunes(tmp_path, edgekit, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    monkeypatch.setenv("EDGEKIT_CACHE_LIMIT", "25kB")
    store = Store()
    for age, name in enumerate("abc"):
        _age(_put(store, name), 100 - age)
    code, out, _ = edgekit("cache")
    assert code == 0
    assert out.splitlines()[0] == f"{tmp_path}: 30.3 kB of 25.0 kB"
    assert out.splitlines()[1].split() == ["stage", "3", "entries", "30.3", "kB"]
    code, out, _ = edgekit("cache", "--json")
    told = json.loads(out)
    assert (told["limit_bytes"], told["root"]) == (25 * KB, str(tmp_path))
    assert told["stages"] == [{"stage": "stage", "entries": 3, "size_bytes": told["size_bytes"]}]
    assert (
        edgekit("cache", "prune")[1].strip() == f"{tmp_path}: 1 entries removed (10.1 kB), 2 kept (20.2 kB)"
    )
    edgekit("cache", "prune", "--limit", "11kB")
    assert [entry.path.name for entry in store.entries()] == [key_of(name="c")]
    with store.lease():
        _put(store, "c")
        code, out, _ = edgekit("cache", "prune", "--all")
        assert "above 0 B because running builds use them" in out
    assert edgekit("cache", "prune", "--all")[0] == 0
    assert store.entries() == []
    code, _, error = edgekit("cache", "prune", "--all", "--limit", "1GB")
    assert (code, error.strip()) == (2, "edgekit: cache prune: --all with --limit: one of them")


def test_a_build_holds_the_limit_it_is_given(tmp_path, folder, edgekit, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    from small_model import NET

    flags = ["--data", f"imagefolder:{folder}", "--calibration", 8, "--evaluation", 8, "--profile", "fast"]
    flags += ["--latency", "off", "--max-drop", 1, "--out", tmp_path / "out"]
    code, _, error = edgekit("build", NET, *flags, "--cache-limit", "tiny")
    assert code == 2
    assert "cache limit 'tiny' is no size" in error
    edgekit("build", NET, *flags, "--cache-limit", "40kB")
    assert (tmp_path / "out" / "report.json").exists()
    left = Store(tmp_path / "cache").entries()
    assert sum(entry.size_bytes for entry in left) <= 40 * KB
    assert Path(tmp_path / "cache" / ".leases").exists()
    assert not list((tmp_path / "cache" / ".leases").iterdir())
