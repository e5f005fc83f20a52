"""What every test shares: one thread, which is quickest for small tensors, and the same examples each run."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from hypothesis import settings

collect_ignore = ["additions"]  # toys for test_contributing.py, which puts them into a copy of the package
torch.set_num_threads(1)
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in the background of a shell: what tests start would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.pop("PYTHONUNBUFFERED", None)  # which hides what is left in the buffer of a stream that takes nothing
settings.register_profile("stackrev", derandomize=True, deadline=None, database=None)
settings.load_profile("stackrev")


@pytest.fixture
def generator() -> torch.Generator:
    """A generator of the test's own, always in the same state at first."""
    return torch.Generator().manual_seed(0)
