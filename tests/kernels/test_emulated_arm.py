"""The kernels on Arm: the NEON library under emulation, against torch and float64 on this machine.

`STACKREV_ARM64_LIBRARY` names a library, such as that of the wheel for aarch64, and `STACKREV_ARM64_ROOT` a folder with
an aarch64 Python (docs/release.md says how to make one); without them, or without qemu-user, nothing is tested.
"""

import os
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from stackrev.evaluation.certificate.constants import SIGMOID_ERROR, TANH_ERROR
from stackrev.evaluation.decoding import greedy
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models.stack_lstm import StackLSTMReverser
from stackrev.tasks import vocabulary

LIBRARY, ROOT = os.environ.get("STACKREV_ARM64_LIBRARY", ""), os.environ.get("STACKREV_ARM64_ROOT", "")
EMULATOR = shutil.which("qemu-aarch64")
pytestmark = pytest.mark.skipif(not (LIBRARY and ROOT and EMULATOR), reason="no aarch64 library, Python or emulator")

SOURCE, FED, LIMIT = list(range(3, 40)), list(range(40, 70)), 30


@pytest.fixture(scope="module")
def model():
    config = StackLSTMConfig(hidden_size=24, stack_width=12, layers=2)
    model = StackLSTMReverser(config, torch.Generator().manual_seed(0)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture(scope="module")
def numbers():
    return torch.cat([torch.linspace(-120, 120, 20_000), torch.logspace(-40, 1, 5_000), -torch.logspace(-40, 1, 5_000)])


@pytest.fixture(scope="module")
def found(model, numbers):
    shape = model.config
    given = {
        "numbers": numbers.numpy().tobytes(),
        "weights": {name: each.detach().numpy().tobytes() for name, each in model.state_dict().items()},
        "shape": {"hidden": shape.hidden_size, "width": shape.stack_width, "layers": shape.layers,
                  "stretch": shape.gate_stretch},
        "source": SOURCE,
        "fed": FED,
        "strings": [SOURCE[:n] for n in range(0, 37, 3)],
        "how": {"start": vocabulary.START, "separator": vocabulary.SEPARATOR, "stop": vocabulary.END,
                "limits": [LIMIT] * 13},
    }  # fmt: skip
    python = next(Path(ROOT, "usr/bin").glob("python3.*"))
    script = Path(__file__).with_name("emulated_arm.py")
    command = [EMULATOR, "-L", ROOT, python, "-B", script, LIBRARY]
    done = subprocess.run(command, input=pickle.dumps(given), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return pickle.loads(done.stdout)


def test_it_is_the_library_for_arm(found):
    assert found["machine"] == "aarch64"
    assert found["version"]


@pytest.mark.parametrize(("name", "bound"), [("sigmoid", SIGMOID_ERROR), ("tanh", TANH_ERROR)])
def test_the_activations_keep_the_bounds_of_the_proof(found, numbers, name, bound):
    ours = torch.frombuffer(bytearray(found[name]), dtype=torch.float32).double()
    error = float((ours - getattr(torch, name)(numbers.double())).abs().max()) * 2**24
    print(f"{name}: {len(numbers):,} comparisons, greatest difference {error:.3f} units of 2^-24")  # noqa: T201
    assert error <= bound


def test_every_step_is_that_of_torch(model, found):
    state, one, least, count = model.initial_state(1), torch.ones(1, dtype=torch.int64), 0.0, 0
    phases = [(model.encoder, each) for each in SOURCE] + [(model.decoder, each) for each in FED]
    for (cell, symbol), hidden, read in zip(phases, found["hidden"], found["read"], strict=True):
        with torch.no_grad():
            out = model.run(cell, torch.tensor([[symbol]]), one, state)
        state = out.state
        for ours, theirs in ((hidden, out.hidden[0, 0]), (read, state.read[0])):
            least = max(least, float((torch.tensor(ours) - theirs).abs().max()))
            count += len(ours)
    print(f"steps: {count:,} comparisons, greatest difference {least:.2e}")  # noqa: T201
    assert least < 1e-5


def test_answers_are_those_of_torch(model, found):
    for n, written in zip(range(0, 37, 3), found["answers"], strict=True):
        assert written == greedy(model, [torch.tensor(SOURCE[:n], dtype=torch.int64)], limit=LIMIT)[0]
