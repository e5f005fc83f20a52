"""`stackrev page`: what it writes where, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import webbrowser

import pytest

from stackrev import cli


@pytest.fixture
def run(capfd):
    def main(*arguments):
        code = cli.main(["page", *arguments])
        return (code, *capfd.readouterr())

    return main


def test_a_file_and_where_it_goes(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("hello") == (0, "", "note: wrote stackrev.html\n")
    assert '"text":"hello"' in (tmp_path / "stackrev.html").read_text()
    assert run("$marked|", "-o", "other.html", "--quiet") == (0, "", "")
    assert '"text":"marked"' in (tmp_path / "other.html").read_text()
    code, out, err = run("-o", "-")
    assert (code, err) == (0, "")
    assert out.startswith("<!doctype html>")
    assert out.endswith("</html>\n")
    assert '"text":"A string to reverse"' in out


def test_a_browser_opens_it(run, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    path = tmp_path / "a page.html"
    assert run("-o", str(path), "--open") == (0, "", f"note: wrote {path}\n")
    assert opened == [path.as_uri()]
    assert run("--open")[0] == 0
    assert opened[1].endswith("/stackrev.html")
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    assert f"no browser was found; the page is at {path.as_uri()}" in run("-o", str(path), "--open")[2]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["two", "words"], 2, "there is more than one text"),
        (["-o", "-", "--open"], 2, "--open needs a file"),
        (["--model", "lstm"], 2, "lstm has no stack to show"),
        (["--model", "nothing"], 2, "nothing"),
        (["-o", "/nowhere/at/all.html"], 1, "cannot be written: No such file or directory"),
        (["".join(map(chr, range(0x4E00, 0x4E00 + 129)))], 1, "129 different characters"),
    ],
)
def test_what_is_refused(run, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert message in err.splitlines()[0]
    assert not list(tmp_path.iterdir())


def test_nothing_but_a_regular_file_is_written(run, tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "link").symlink_to("victim")
    (tmp_path / "dangling").symlink_to("made")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "dangling", "folder", "pipe", "/dev/null"):
        code, out, err = run("-o", str(tmp_path / name))
        assert (code, out) == (1, "")
        assert err.startswith(f"error: {tmp_path / name} is not a regular file")
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (tmp_path / "made").exists()


def test_nothing_waits_for_torch(tmp_path):
    code = (
        f"import sys; from stackrev.cli import main; code = main(['page', '-o', {str(tmp_path / 'x.html')!r}]); "
        "sys.exit(code or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
