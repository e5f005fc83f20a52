"""The benchmark measures what it names, or stops."""

import subprocess
from pathlib import Path

import pytest

import stackrev
from stackrev import kernels

pytestmark = pytest.mark.skipif(not kernels.available(), reason="the kernels were not compiled")


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "scripts"))
    import benchmark

    return benchmark


@pytest.fixture
def other(tmp_path):
    """A folder with another stackrev in it, which has no kernels."""
    package = tmp_path / "stackrev"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("print('the other one')")
    (package / "kernels.py").write_text("def describe(): return 'plain torch: not compiled'")
    return tmp_path


def test_a_command_is_this_installation_s_wherever_it_is_started(benchmark, other, monkeypatch):
    monkeypatch.chdir(other)
    done = subprocess.run([*benchmark.stackrev_command(), "--version"], capture_output=True, text=True, check=True)
    assert kernels.describe() in done.stdout


def test_it_stops_if_a_command_would_be_another_s(benchmark, other, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(other))
    with pytest.raises(SystemExit, match=r"would run .*, not .*") as caught:
        benchmark.train(1)
    assert stackrev.__file__ in str(caught.value)


@pytest.mark.parametrize("native", ["0", "baseline"])
def test_it_stops_if_a_command_would_have_other_kernels(benchmark, native, monkeypatch):
    monkeypatch.setenv("STACKREV_NATIVE", native)
    if f"kernels, {native}" in kernels.describe():
        pytest.skip("those are this process's own")
    with pytest.raises(SystemExit, match="would run"):
        benchmark.stackrev_command()


def test_plain_torch_is_not_timed_as_the_kernels(benchmark):
    with kernels.using("torch"), pytest.raises(SystemExit, match="not there"):
        benchmark.main(["stack"])


def test_nothing_is_reported_where_results_disagree(benchmark):
    import torch

    with pytest.raises(SystemExit, match="results disagree: number 1"):
        benchmark.agree([torch.ones(3), torch.ones(3)], [torch.ones(3), torch.zeros(3) + 2], 1e-6)
    with pytest.raises(SystemExit, match="results disagree"):
        benchmark.agree([torch.tensor([torch.nan])], [torch.ones(1)], 1e-6)
