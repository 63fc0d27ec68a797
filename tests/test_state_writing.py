"""Saving over a file: there is the old one or the new one, whatever happens, and nothing else stays for long."""

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import polyak.numpy
from polyak import state
from polyak.state.writing import replaced, uninterrupted

SAVER = Path(__file__).with_name("state_saver.py")
SIZE = 1 << 20


def optimizer(value, size=8):
    made = polyak.numpy.Momentum({name: np.zeros(size, np.float32) for name in "wv"})
    for array in made.slots["velocity"].values():
        array[...] = value
    return made


def start(path):
    process = subprocess.Popen(
        [sys.executable, SAVER, path, str(SIZE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout.readline() == "started\n"
    return process


def assert_whole(path, size=SIZE):
    """All numbers of both tensors are of one save."""
    velocities = load_file(path)
    assert velocities.keys() == {"velocity/w", "velocity/v"}
    values = {float(x) for array in velocities.values() for x in (array.min(), array.max())}
    assert len(values) == 1
    assert all(array.shape == (size,) for array in velocities.values())


def test_killed_at_any_moment(tmp_path):
    path = tmp_path / "a.safetensors"
    state.save(path, optimizer(0.0, SIZE))
    rng = np.random.default_rng(0)
    interrupted = 0
    for _ in range(12):
        process = start(path)
        time.sleep(rng.uniform(0.0, 0.1))
        process.kill()
        process.wait()
        process.stdout.close()
        assert_whole(path)
        leftovers = [each for each in tmp_path.iterdir() if each != path]
        assert len(leftovers) <= 1  # each save removes those of the processes before it
        assert all(each.name.startswith(".a.safetensors.") and each.name.endswith(".tmp") for each in leftovers)
        interrupted += len(leftovers)
    assert interrupted, "no kill came in the middle of a save, so nothing was tested"
    state.save(path, optimizer(0.0))
    assert list(tmp_path.iterdir()) == [path]


def test_ctrl_c_leaves_the_old_or_the_new_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.safetensors"
    state.save(path, optimizer(0.0, SIZE))
    process = start(path)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.wait()
    process.stdout.close()
    assert_whole(path)
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    state.save(path, optimizer(1.0))
    before = path.read_bytes()

    def full(descriptor):  # noqa: ARG001
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        state.save(path, optimizer(2.0))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_and_its_folder_are_brought_to_the_disk_in_this_order(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor):
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def noted_replace(self, target):
        done.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    state.save(tmp_path / "a", optimizer(1.0))
    assert done == ["file", "rename", "folder"]


def test_leftovers_of_the_living_and_of_other_machines_stay(tmp_path):
    path = tmp_path / "a"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = platform.node()
    stay = [f".a.{here}.{os.getppid()}.0.tmp", f".a.elsewhere-{here}.{ended.pid}.0.tmp", ".a.tmp", f".a.{here}.x.tmp"]
    gone = f".a.{here}.{ended.pid}.0.tmp"
    for name in [*stay, gone]:
        (tmp_path / name).touch()
    state.save(path, optimizer(1.0))
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(["a", *stay])


def test_a_link_stays_a_link_and_permissions_stay(tmp_path):
    path, link = tmp_path / "a", tmp_path / "link"
    state.save(path, optimizer(1.0))
    path.chmod(0o640)
    link.symlink_to(path)
    state.save(link, optimizer(2.0))
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert load_file(path)["velocity/w"][0] == 2.0


def test_threads_that_save_to_one_path(tmp_path):
    path = tmp_path / "a"
    threads = [threading.Thread(target=state.save, args=(path, optimizer(float(i), SIZE))) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_whole(path)
    assert list(tmp_path.iterdir()) == [path]


def test_ctrl_c_waits_while_an_optimizer_is_written_to():
    written = []

    def write():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            written.append("all")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert written == ["all"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_under_replaced_is_the_one_that_comes_out(tmp_path):
    with pytest.raises(RuntimeError, match="mine"), replaced(tmp_path / "a"):
        raise RuntimeError("mine")
    assert not list(tmp_path.iterdir())
