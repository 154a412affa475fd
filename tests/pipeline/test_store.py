"""The store: whole entries or none, under damage, kill -9, races and full disks."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgekit.errors import StoreError
from edgekit.files import write_atomic
from edgekit.pipeline import store as stores
from edgekit.pipeline.store import Store, key_of


def _write(text):
    return lambda directory: (directory / "file.txt").write_text(text)


def test_put_then_find_returns_the_files(tmp_path):
    store = Store(tmp_path)
    key = key_of(a=1)
    assert store.find("stage", key) is None
    put = store.put("stage", key, _write("hello"))
    assert store.find("stage", key) == put
    assert (put / "file.txt").read_text() == "hello"


def test_keys_differ_with_every_part_and_not_with_their_order():
    assert key_of(a=1, b=2) == key_of(b=2, a=1)
    assert len({key_of(a=1), key_of(a=2), key_of(b=1), key_of(a=1, b=None)}) == 4


@pytest.mark.parametrize("damage", ["truncate", "delete", "index"])
def test_a_damaged_entry_is_a_miss_and_can_be_made_again(tmp_path, damage):
    store, key = Store(tmp_path), key_of(x=1)
    entry = store.put("stage", key, _write("content"))
    if damage == "truncate":
        (entry / "file.txt").write_text("cont")
    elif damage == "delete":
        (entry / "file.txt").unlink()
    else:
        (entry / "entry.json").write_text('{"files": ')
    assert store.find("stage", key) is None
    store.put("stage", key, _write("content"))
    assert (store.find("stage", key) / "file.txt").read_text() == "content"


def test_a_failed_stage_leaves_nothing_behind(tmp_path):
    store = Store(tmp_path)

    def fail(directory):
        (directory / "half").write_text("half")
        raise ValueError("stopped")

    with pytest.raises(ValueError, match="stopped"):
        store.put("stage", key_of(), fail)
    assert list((tmp_path / "stage").iterdir()) == []


def test_many_builds_at_once_agree_on_one_entry(tmp_path):
    key = key_of(race=True)
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _i: Store(tmp_path).put("stage", key, _write("same")), range(32)))
    assert len(paths) == 1
    assert [p.name for p in (tmp_path / "stage").iterdir()] == [key]


def test_kill_9_in_the_middle_of_a_stage_leaves_no_entry(tmp_path):
    script = textwrap.dedent(
        """
        import sys, time
        from edgekit.pipeline.store import Store, key_of
        def slow(directory):
            (directory / "file.txt").write_text("half")
            print("writing", flush=True)
            time.sleep(60)
        Store(sys.argv[1]).put("stage", key_of(k=1), slow)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"writing\n"
        os.kill(child.pid, signal.SIGKILL)
    store = Store(tmp_path)
    assert store.find("stage", key_of(k=1)) is None
    store.put("stage", key_of(k=1), _write("whole"))
    assert (store.find("stage", key_of(k=1)) / "file.txt").read_text() == "whole"


def test_leftovers_of_killed_builds_are_swept_after_a_day(tmp_path):
    old = tmp_path / "stage" / ".old"
    old.mkdir(parents=True)
    long_ago = time.time() - stores.STALE_SECONDS - 60
    os.utime(old, (long_ago, long_ago))
    young = tmp_path / "stage" / ".young"
    young.mkdir()
    Store(tmp_path).put("stage", key_of(), _write("x"))
    assert not old.exists()
    assert young.exists()


def test_a_full_disk_is_one_line(tmp_path):
    def full(directory):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory / "file"))

    with pytest.raises(StoreError, match=r"the disk is full: free some space"):
        Store(tmp_path).put("stage", key_of(), full)
    assert list((tmp_path / "stage").iterdir()) == []


def test_a_file_where_the_cache_should_be_is_one_line(tmp_path):
    (tmp_path / "cache").write_text("not a directory")
    with pytest.raises(StoreError, match="a file is in the way"):
        Store(tmp_path / "cache").put("stage", key_of(), _write("x"))


def test_write_atomic_replaces_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    write_atomic(path, "one")
    write_atomic(path, "two")
    assert path.read_text() == "two"

    def broken(_source, _target):
        raise OSError(errno.ENOSPC, "full", str(path))

    monkeypatch.setattr(stores.os, "replace", broken)
    with pytest.raises(StoreError):
        write_atomic(path, "three")
    assert path.read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
