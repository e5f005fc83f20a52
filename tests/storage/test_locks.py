"""A lock has one holder at a time, whose death unlocks it, and what is no lock of ours is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import stackrev
from stackrev.errors import FileError, LockedError
from stackrev.storage import locks

ROOT = Path(stackrev.__file__).parent.parent


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def test_a_folder_has_one_lock(tmp_path):
    with locks.lock(tmp_path) as held:
        assert held.held
        with pytest.raises(LockedError, match=rf"another process \({os.getpid()}\) w") as caught, locks.lock(tmp_path):
            pass
        assert caught.value.pid == os.getpid()
        assert "\n" not in caught.value.message
    assert not held.held
    assert names(tmp_path) == []
    with locks.lock(tmp_path):
        pass


def test_a_lock_that_its_holder_left_behind_locks_nobody_out(tmp_path):
    code = "import os, sys, signal; from pathlib import Path; from stackrev.storage import locks\n"
    code += "with locks.lock(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert names(tmp_path) == [locks.LOCK]
    with locks.lock(tmp_path):
        assert (tmp_path / locks.LOCK).read_text() == f"{os.getpid()}\n"
    assert names(tmp_path) == []


def test_holders_take_turns(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(20):
            with locks.lock(tmp_path, seconds=None):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(most) == 80
    assert max(most) == 1


def test_what_is_no_lock_is_neither_taken_nor_changed(tmp_path):
    (tmp_path / "victim").write_text("12")
    lock = tmp_path / locks.LOCK
    for make in (
        lambda: lock.symlink_to("victim"),
        lambda: lock.symlink_to("nothing"),
        lambda: lock.hardlink_to(tmp_path / "victim"),
        lambda: os.mkfifo(lock),
        lambda: lock.write_text("mine"),
        lambda: lock.write_text("1\n" * 100),
    ):
        make()
        before = lock.lstat()
        with pytest.raises(FileError, match="not a lock of stackrev's"), locks.lock(tmp_path):
            pass
        assert os.path.samestat(before, lock.lstat())
        assert before.st_size == lock.lstat().st_size
        lock.unlink()
    lock.mkdir()
    with pytest.raises(FileError, match="not a lock of stackrev's"), locks.lock(tmp_path):
        pass
    assert (tmp_path / "victim").read_text() == "12"
    assert not (tmp_path / "nothing").exists()
