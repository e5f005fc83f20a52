"""The choice between plain torch and the compiled kernels."""

import subprocess
import sys
import threading

import pytest

from stackrev import kernels
from stackrev.errors import NativeError
from stackrev.kernels import dispatch, using
from stackrev.kernels.cpu import library

needs_kernels = pytest.mark.skipif(not kernels.available(), reason="the kernels were not compiled")


def test_forced_and_put_back():
    before = kernels.available()
    with using("torch"):
        assert not kernels.available()
        assert kernels.describe().startswith("plain torch: forced")
        if before:
            with using("compiled"):
                assert kernels.available()
        assert dispatch.forced() == "torch"
    assert dispatch.forced() is None
    with pytest.raises(ZeroDivisionError), using("torch"):
        _ = 1 / 0
    assert kernels.available() == before


def test_only_in_this_thread():
    seen = []
    with using("torch"):
        thread = threading.Thread(target=lambda: seen.append(dispatch.forced()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_there_are_two():
    with pytest.raises(ValueError, match='there are "torch" and "compiled"'), using("numpy"):
        pass


def test_what_is_not_there_cannot_be_forced(monkeypatch):
    monkeypatch.setattr(library, "NATIVE", library.Native(None, "", "no compiler was there"))
    with pytest.raises(NativeError, match="no compiler was there"), using("compiled"):
        pass


def test_neither_import_nor_choice_needs_torch():
    code = (
        "import sys; from stackrev import kernels\n"
        "with kernels.using('torch'): kernels.available(), kernels.describe()\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
