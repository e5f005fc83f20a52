"""Files are read within bounds, and written whole, durably and through no link."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import stackrev
from stackrev.errors import CheckpointError, DataError, FileError, MissingFileError
from stackrev.storage import examples, files

ROOT = Path(stackrev.__file__).parent.parent


def names(folder):
    return sorted(each.name for each in folder.iterdir())


# Reading.


def test_what_a_file_holds(tmp_path):
    (tmp_path / "file").write_bytes(b"one\ntwo\n\nthree")
    assert files.read_bytes(tmp_path / "file", 14) == b"one\ntwo\n\nthree"
    assert list(files.read_lines(tmp_path / "file", 14)) == [b"one\n", b"two\n", b"\n", b"three"]


def read_all_lines(path, limit):
    return list(files.read_lines(path, limit))


@pytest.mark.parametrize("read", [files.read_bytes, read_all_lines])
def test_what_is_not_read(tmp_path, read):
    with pytest.raises(MissingFileError, match="there is no file"):
        read(tmp_path / "nothing", 10)
    with pytest.raises(FileError, match="cannot be read"):
        read(tmp_path / "nul\0", 10)
    with pytest.raises(FileError, match=r"irectory|not a regular file"):
        read(tmp_path, 10)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in (tmp_path / "pipe", tmp_path / "link", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(FileError, match="not a regular file"):
            read(name, 10)
    (tmp_path / "file").write_bytes(b"x" * 11)
    with pytest.raises(FileError, match="more than it can need"):
        read(tmp_path / "file", 10)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="a file whose size is said to be 0")
@pytest.mark.parametrize("read", [files.read_bytes, read_all_lines])
def test_a_file_is_not_trusted_on_its_size(read):
    with pytest.raises(FileError, match="larger than 10 bytes"):
        read(Path("/proc/self/status"), 10)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="a file that cannot be read from its start")
def test_a_file_that_fails_while_it_is_read():
    with pytest.raises(FileError, match="/proc/self/mem cannot be read"):
        files.read_bytes(Path("/proc/self/mem"), 10)
    with pytest.raises(DataError, match="/proc/self/mem cannot be read"):
        list(examples.read(Path("/proc/self/mem"), symbols=10, strings=10))


def test_errors_take_the_kind_of_the_room():
    with pytest.raises(CheckpointError) as caught, files.raising(CheckpointError):
        raise FileError("what", hint="then")
    assert (caught.value.message, caught.value.hint) == ("what", "then")


# Writing.


def test_a_file_is_written_whole_and_nothing_else_is_left(tmp_path):
    files.write(tmp_path / "new", b"bytes")
    files.write(tmp_path / "parts", (part for part in (b"a", b"", b"b")))
    files.write(tmp_path / "new", b"again")
    assert (tmp_path / "new").read_bytes() == b"again"
    assert (tmp_path / "parts").read_bytes() == b"ab"
    assert names(tmp_path) == ["new", "parts"]


def test_a_failure_leaves_what_was_there(tmp_path):
    (tmp_path / "file").write_text("before")

    def parts():
        yield b"after"
        raise ValueError("the caller's own")

    with pytest.raises(ValueError, match="the caller's own"):
        files.write(tmp_path / "file", parts())
    assert (tmp_path / "file").read_text() == "before"
    assert names(tmp_path) == ["file"]


def test_permissions_are_those_of_the_file_that_is_replaced_or_the_usual_ones(tmp_path):
    (tmp_path / "private").touch()
    (tmp_path / "private").chmod(0o600)
    files.write(tmp_path / "private", b"")
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600
    files.write(tmp_path / "new", b"")
    (tmp_path / "usual").touch()
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_nothing_but_regular_files_is_replaced(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "link").symlink_to("victim")
    (tmp_path / "dangling").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    before = names(tmp_path)
    for name in ("link", "dangling", "pipe", "folder"):
        with pytest.raises(FileError, match="not a regular file"):
            files.write(tmp_path / name, b"yours")
    with pytest.raises(FileError, match="not a regular file"):
        files.write(Path("/dev/null"), b"yours")
    assert (tmp_path / "victim").read_text() == "mine"
    assert names(tmp_path) == before


def test_a_staged_name_that_is_taken_is_not_written_through(tmp_path, monkeypatch):
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "0" * 16)  # even if it had been guessed
    (tmp_path / "victim").write_text("mine")
    staged = tmp_path / f".file.{'0' * 16}.new"
    for make in (lambda: staged.symlink_to("victim"), lambda: os.mkfifo(staged), lambda: staged.symlink_to("nothing")):
        make()
        with pytest.raises(FileError, match="cannot be written"):
            files.write(tmp_path / "file", b"yours")
        staged.unlink()
    assert names(tmp_path) == ["victim"]
    assert (tmp_path / "victim").read_text() == "mine"


def test_staged_names_differ_from_write_to_write(tmp_path):
    staged = {files.stage(tmp_path / "file", b"") for _ in range(10)}
    assert len(staged) == 10
    assert set(files.staged_files(tmp_path / "file")) == staged
    assert files.staged_files(tmp_path / "other") == []
    (tmp_path / ".file.0123456789abcdef.new").symlink_to("nothing")
    (tmp_path / ".file.mine.new").touch()
    files.sweep(tmp_path / "file")
    assert names(tmp_path) == [".file.0123456789abcdef.new", ".file.mine.new"]


def test_writes_that_fail_are_one_line(tmp_path):
    for path in (tmp_path / "no" / "file", tmp_path / "nul\0", Path("/proc/nothing")):
        with pytest.raises(FileError, match="cannot be written"):
            files.write(path, b"")
    with pytest.raises(FileError, match="cannot be written"):
        files.make_folder(Path("/dev/null/folder"))
    files.write(tmp_path / ("x" * 255), b"long names are names")
    assert names(tmp_path) == ["x" * 255]


def test_a_file_and_every_new_folder_are_on_disk_in_this_order(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, Path.replace

    def record_sync(descriptor):
        status = os.fstat(descriptor)
        known = [each for each in (tmp_path, *tmp_path.rglob("*")) if each.lstat().st_ino == status.st_ino]
        done.append("staged" if known[0].suffix == ".new" else known[0].name)
        fsync(descriptor)

    def record_rename(path, target):
        done.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "replace", record_rename)
    files.make_folder(tmp_path / "a" / "b")
    assert sorted(done) == sorted(["a", tmp_path.name])
    done.clear()
    files.write(tmp_path / "a" / "b" / "file", b"data")
    assert done == ["staged", "rename", "b"]
    done.clear()
    files.remove(tmp_path / "a" / "b" / "file")
    files.remove(tmp_path / "a" / "b" / "file")
    assert done == ["b"]
