"""Wheels for other processors and systems: their kernels against torch and float64, and commands without torch.

Only what scripts/emulate.py has prepared is tested: it names a folder in `STACKREV_EMULATED`.
"""

import functools
import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from emulation import RemoteLibrary, kernels_of
from test_compiled_memories import COMPILED, ENDS, PLAIN, Random, alone, recurrence_call, with_gradients
from test_compiled_readout import random_call as read_out_call
from test_compiled_readout import results as read_out_results

from stackrev.evaluation.certificate.constants import SIGMOID_ERROR, TANH_ERROR
from stackrev.evaluation.decoding import greedy
from stackrev.kernels import using
from stackrev.kernels.cpu.activations import activation
from stackrev.kernels.cpu.stream import Stream
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models.stack_lstm import StackLSTMReverser
from stackrev.readout import read_out_right
from stackrev.structures.recurrence import memory_lstm
from stackrev.tasks import vocabulary

PREPARED = Path(os.environ.get("STACKREV_EMULATED", "/nowhere"), "commands.json")
COMMANDS = json.loads(PREPARED.read_text(encoding="utf-8")) if PREPARED.exists() else {}
LIBRARIES, PROGRAMS = COMMANDS.get("libraries", {}), COMMANDS.get("programs", {})
DTYPES = {"float": torch.float32, "double": torch.float64}
TOLERANCE = {"float": 1e-5, "double": 1e-10}
SOURCE, FED, LIMIT = list(range(3, 40)), list(range(40, 70)), 30
STRINGS = [SOURCE[:n] for n in range(0, 37, 3)]


def report(remote: RemoteLibrary, what: str, count: int, furthest: float, unit: str = "") -> None:
    remote.compared += count
    print(f"{remote.name}: {what}: {count:,} comparisons, greatest difference {furthest:.3g}{unit}")  # noqa: T201


def furthest(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> tuple[int, float]:
    """How many numbers there are, and by how much they differ, as a share of a tensor's greatest if that is over 1."""
    count, most = 0, 0.0
    for a, b in zip(ours, theirs, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert a.isfinite().all()
        if b.numel():
            most = max(most, float((a - b).abs().max() / b.abs().max().clamp(min=1)))
        count += b.numel()
    return count, most


@pytest.mark.skipif(not PROGRAMS, reason="no emulated Python; see docs/release.md")
@pytest.mark.parametrize("name", PROGRAMS or ["none"])
class TestCommandsWithoutTorch:
    def run(self, name: str, *words: str) -> subprocess.CompletedProcess:
        return subprocess.run([*PROGRAMS[name], *words], capture_output=True, text=True, check=False)

    def test_reverse(self, name):
        assert self.run(name, "reverse", "hello").stdout == "olleh\n"

    def test_version(self, name):
        said = self.run(name, "--version").stdout
        assert "compiled kernels, baseline" in said
        assert "torch is not installed" in said

    def test_train_says_what_to_install(self, name):
        done = self.run(name, "train")
        assert (done.returncode, done.stdout) == (1, "")
        error, hint = done.stderr.splitlines()
        assert error == "error: PyTorch is not installed, and this needs it"
        assert "pip install torch" in hint


@pytest.fixture(scope="module", params=LIBRARIES or ["none"])
def remote(request):
    if request.param not in LIBRARIES:
        pytest.skip("no emulated library; see docs/release.md")
    remote = RemoteLibrary(LIBRARIES[request.param])
    remote.name, remote.compared = request.param, 0
    with kernels_of(remote):
        yield remote
    print(f"{remote.name}: {remote.compared:,} comparisons in all")  # noqa: T201
    remote.close()


@pytest.mark.parametrize(("name", "bound"), [("sigmoid", SIGMOID_ERROR), ("tanh", TANH_ERROR)])
def test_the_activations_keep_the_bounds_of_the_proof(remote, name, bound):
    small = torch.logspace(-40, 1, 5_000)
    numbers = torch.cat([torch.linspace(-120, 120, 20_000), small, -small])
    ours = torch.frombuffer(activation(name, numbers.numpy()), dtype=torch.float32).double()
    error = float((ours - getattr(torch, name)(numbers.double())).abs().max()) * 2**24
    report(remote, name, len(numbers), error, " units of 2^-24")
    assert error <= bound


def structure_alone(name, dtype):
    random = Random(0, dtype)
    controls, state = random.controls(name, 33, 5, 7), random.state(name, 3, 5, 7)
    depth = (random.uniform(33, 5, high=2) + 0.1).detach().requires_grad_()
    return lambda plain: alone(name, (PLAIN if plain else COMPILED)[name], controls, state, depth)


def recurrence(name, dtype, stretch=0.0):
    stretches = {"stretch": stretch, "cell_stretch": stretch}
    call, wanted = recurrence_call(name, 20, 53, 9, 13, 2, N=2, dtype=dtype, table=17, **stretches)

    def results(plain):
        out = memory_lstm(**call)
        outputs = [out.hidden, out.push, out.pop, *out.state[:3], *out.state.memory]
        return with_gradients(outputs, (out.state.memory.strengths > 1e-9).detach(), wanted)

    return results


def read_out(_, dtype):
    hidden, targets, steps, weights = call = read_out_call(20, 53, 13, 37, dtype=dtype, scale=0.5)
    return lambda plain: [*read_out_results(call, 3.0), read_out_right(hidden, targets, steps, weights).double()]


KERNELS = {
    **{f"{name} alone": (structure_alone, name) for name in ENDS},
    **{f"{name} recurrence": (recurrence, name) for name in ENDS},
    "stretched recurrence": (functools.partial(recurrence, stretch=0.1), "deque"),
    "read-out": (read_out, ""),
}


@pytest.mark.parametrize("numbers", DTYPES)
@pytest.mark.parametrize("what", KERNELS)
def test_a_kernel_and_its_derivative_are_plain_torch_s(remote, what, numbers):
    case, name = KERNELS[what]
    results = case(name, DTYPES[numbers])
    with using("torch"):
        theirs = results(plain=True)
    before = remote.calls
    with using("compiled"):
        ours = results(plain=False)
    functions = remote.calls - before
    assert len(functions) == 2 - (what == "read-out"), "a kernel and, but for the read-out, its derivative"
    count, most = furthest(ours, theirs)
    report(remote, f"{what}, {numbers}", count, most)
    assert most <= TOLERANCE[numbers]


@pytest.fixture(scope="module")
def model():
    config = StackLSTMConfig(hidden_size=24, stack_width=12, layers=2, cell_stretch=0.1)
    model = StackLSTMReverser(config, torch.Generator().manual_seed(0)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


class TestStream:
    @pytest.fixture
    def stream(self, remote, model):
        shape = model.config
        return Stream(
            {name: each.detach().numpy().tobytes() for name, each in model.state_dict().items()},
            hidden=shape.hidden_size,
            width=shape.stack_width,
            layers=shape.layers,
            stretch=shape.gate_stretch,
            cell_stretch=shape.cell_stretch,
        )

    def test_every_step_is_that_of_torch(self, remote, model, stream):
        state, one, ours, theirs = model.initial_state(1), torch.ones(1, dtype=torch.int64), [], []
        phases = [(stream.encode, model.encoder, each) for each in SOURCE]
        phases += [(stream.feed_decoder, model.decoder, each) for each in FED]
        for feed, cell, symbol in phases:
            feed([symbol])
            look = stream.look()
            with using("torch"), torch.no_grad():
                out = model.run(cell, torch.tensor([[symbol]]), one, state)
            state = out.state
            ours += [torch.tensor(each, dtype=torch.float32) for each in (look.hidden, look.read, look.push, look.pop)]
            theirs += [out.hidden[0, 0], state.read[0], out.push[0, 0], out.pop[0, 0]]
        count, most = furthest(ours, theirs)
        report(remote, "steps of a stream", count, most)
        assert most < 1e-5
        assert all(0 <= each < float("inf") for each in stream.nearest())

    def test_answers_are_those_of_torch(self, remote, model, stream):
        with using("torch"):
            wanted = [greedy(model, [torch.tensor(each, dtype=torch.int64)], limit=LIMIT)[0] for each in STRINGS]
        how = {"start": vocabulary.START, "separator": vocabulary.SEPARATOR, "stop": vocabulary.END}
        assert stream.answer(STRINGS, limits=[LIMIT] * len(STRINGS), **how) == wanted
        for string, answer in zip(STRINGS, wanted, strict=True):
            stream.reset()
            stream.encode([vocabulary.START, *string])
            again = stream.fresh()
            again.encode([vocabulary.START, *string])
            assert again.decode_greedy(vocabulary.SEPARATOR, vocabulary.END, LIMIT).tolist() == answer
            assert stream.score(vocabulary.SEPARATOR, answer).right == len(answer)
        report(remote, "symbols of answers", 3 * sum(map(len, wanted)), 0)
