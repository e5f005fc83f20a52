"""How fast the compiled kernels are, as ratios measured in one run. No speed is printed where results disagree.

    python scripts/benchmark.py [stack] [growth] [step] [literal] [train] [train-time] [stream]
                                [lines] [memories] [memory-growth] [memory-step] [memory-stream]

Times are medians over repetitions in which the competitors take turns, so that what else the machine does hits them
alike. What runs on one thread is measured in the processor's time, which waiting for the processor is no part of. Each
line names the bound that it should keep.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

import stackrev
from stackrev import cli, kernels
from stackrev.kernels.cpu.stream import Stream
from stackrev.kernels.dispatch import Implementation
from stackrev.kinds.stack_lstm import StackLSTMConfig
from stackrev.models import load
from stackrev.models.stack_lstm import StackLSTMReverser
from stackrev.readout import read_out_loss
from stackrev.structures.recurrence import (
    MemoryLSTMOutput,
    MemoryLSTMState,
    MemoryLSTMWeights,
    memory_lstm_torch,
)
from stackrev.structures.stack import StackState, neural_stack
from stackrev.tasks import vocabulary
from stackrev.tasks.batches import Batch, make_batch
from stackrev.training.optimizers import Optimizer
from stackrev.training_config import TrainingConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import benchmark_memories
from benchmark_lines import lines
from benchmark_train import train_time
from measuring import agree, peak_memory, report, seconds
from reference import literal_stack_lstm

BATCH, HIDDEN, WIDTH = 50, 64, 64


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts asked for, all of them by default."""
    parts = {"stack": stack, "growth": growth, "step": step, "literal": literal, "train": train, "stream": stream}
    parts["train-time"] = train_time
    parts["lines"] = lambda repeats: lines(repeats, stackrev_command())
    parts |= benchmark_memories.PARTS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; all if none is named")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--stream-alone", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--command", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if unknown := set(asked.parts) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if asked.command:
        command_alone(shlex.split(asked.command))
    if asked.stream_alone:
        stream_alone(asked.stream_alone)
        return
    print(f"torch {torch.__version__}, {kernels.describe()}, {os.cpu_count()} processors")
    if not kernels.available():
        sys.exit("the kernels are not there")
    for name in asked.parts or parts:
        parts[name](asked.repeats)


# --- The neural stack alone


def controls(steps: int, batch: int = BATCH) -> list[Tensor]:
    """Values, push and pop, all wanting a gradient."""
    generator = torch.Generator().manual_seed(0)
    shapes = (steps, batch, WIDTH), (steps, batch), (steps, batch)
    return [torch.rand(shape, generator=generator).requires_grad_() for shape in shapes]


def both_ways(implementation: Implementation, call: list[Tensor], weight: Tensor) -> tuple[Tensor, ...]:
    """The reads, and the gradients of a weighting of them."""
    with kernels.using(implementation):
        reads, _ = neural_stack(*call)
    return reads.detach(), *torch.autograd.grad(reads, call, weight)


def stack(repeats: int) -> None:
    """Forward and backward against the column form in plain torch, on one thread."""
    torch.set_num_threads(1)
    call = controls(512)
    weight = torch.randn(512, BATCH, WIDTH, generator=torch.Generator().manual_seed(1))
    exact = [t.detach().double().requires_grad_() for t in controls(130, 3)]
    agree(
        *(both_ways(each, exact, weight[:130, :3].double()) for each in ("compiled", "torch")),
        tolerance=1e-10,
    )
    agree(*(both_ways(each, call, weight) for each in ("compiled", "torch")), tolerance=1e-4)
    fast, slow = seconds(
        min(repeats, 5),
        lambda: both_ways("compiled", call, weight),
        lambda: both_ways("torch", call, weight),
    )
    details = f"{fast * 1e3:.1f} ms, {slow * 1e3:.0f} ms"
    report("neural_stack against the column form, T = 512, 1 thread", slow / fast, "x", "at least 60", details)


def growth(repeats: int) -> None:
    """Time and what is saved for the backward pass, per doubling of T, on one thread."""
    torch.set_num_threads(1)
    call, weight = controls(128), torch.ones(128, BATCH, WIDTH)
    agree(*(both_ways(each, call, weight) for each in ("compiled", "torch")), tolerance=1e-5)
    calls = [(controls(128 * 2**i), torch.ones(128 * 2**i, BATCH, WIDTH)) for i in range(8)]
    runs = (lambda pair=pair: both_ways("compiled", *pair) for pair in calls)
    times = seconds(repeats, *runs)
    saved = [saved_by(call) for call, _ in calls]
    for what, measured in (("time", times), ("memory saved", saved)):
        ratios = [after / before for before, after in itertools.pairwise(measured)]
        report(
            f"{what} per doubling of T from 128 to 16,384",
            max(ratios),
            "x",
            "at most 2.2",
            " ".join(f"{ratio:.2f}" for ratio in ratios),
        )


def saved_by(call: list[Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass, the inputs included."""
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        neural_stack(*call)
    return sum(kept)


# --- The stack-LSTM


def batch_of(length: int) -> Batch:
    """Strings of one length."""
    generator = torch.Generator().manual_seed(0)
    return make_batch(list(torch.randint(3, vocabulary.SIZE, (BATCH, length), generator=generator)))


def step(repeats: int) -> None:
    """A training step of the default model against plain torch and against its matrix products, on two threads."""
    torch.set_num_threads(2)
    for length in (36, 64):
        step_of(length, repeats)


def step_of(length: int, repeats: int) -> None:
    """The same at one length."""
    batch = batch_of(length)
    model = StackLSTMReverser(StackLSTMConfig(), torch.Generator().manual_seed(0)).train()
    optimizer = Optimizer(TrainingConfig(), model)

    def gradients(implementation: Implementation) -> list[Tensor]:
        model.zero_grad()
        with kernels.using(implementation):
            hidden = model.hidden(batch, generator=torch.Generator().manual_seed(1))
            loss, _ = read_out_loss(hidden, batch.target, batch.steps, model.read_out_weights)
        loss.backward()  # type: ignore[no-untyped-call]
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    def train(implementation: Implementation) -> None:
        gradients(implementation)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    agree([t.clone() for t in gradients("compiled")], [t.clone() for t in gradients("torch")], tolerance=1e-4)
    competitors = lambda: train("compiled"), lambda: train("torch"), products(length + 1)
    fast, slow, floor = seconds(repeats, *competitors)
    details = f"{fast * 1e3:.2f} ms, {slow * 1e3:.1f} ms"
    report(f"training step, length {length}, against plain torch", slow / fast, "x", "at least 5", details)
    details = f"{floor * 1e3:.2f} ms"
    report(f"training step, length {length}, against its matrix products", fast / floor, "x", "at most 3", details)


def products(steps: int) -> Callable[[], None]:
    """The floating-point operations of a training step as plain float32 matrix products of the same shapes."""
    rows = steps * BATCH
    small = [(WIDTH + HIDDEN, 4 * HIDDEN), (HIDDEN, 2 + WIDTH)]  # every step, forward and back
    large = [(HIDDEN, HIDDEN), (HIDDEN, vocabulary.SIZE)]  # the read-out, all steps at once
    pairs = []
    for inputs, outputs in small:
        pairs += [(torch.randn(BATCH, inputs), torch.randn(inputs, outputs))] * (2 * steps)
        pairs += [(torch.randn(BATCH, outputs), torch.randn(outputs, inputs))] * (2 * steps)
        pairs += [(torch.randn(rows, inputs).T, torch.randn(rows, outputs))] * 2  # the weights' gradient
    for inputs, outputs in large:
        pairs += [(torch.randn(rows, inputs), torch.randn(inputs, outputs))]
        pairs += [(torch.randn(rows, outputs), torch.randn(outputs, inputs))]
        pairs += [(torch.randn(rows, inputs).T, torch.randn(rows, outputs))]

    def run() -> None:
        for a, b in pairs:
            a @ b

    return run


def literal(repeats: int) -> None:
    """The torch path's hand-written backward against one autograd node an operation, on one thread."""
    torch.set_num_threads(1)
    for steps in (37, 65):
        literal_of(steps, repeats)


def literal_of(steps: int, repeats: int) -> None:
    """The same for that many steps of an encoder and then of a decoder."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int, scale: float = 0.1) -> Tensor:
        return (torch.randn(shape, generator=generator) * scale).requires_grad_()

    recurrent, control = randn(WIDTH + HIDDEN, 4 * HIDDEN), randn(HIDDEN, 2 + WIDTH)
    weights = MemoryLSTMWeights((recurrent,), (), control, randn(2 + WIDTH))
    inputs = randn(steps, BATCH, 4 * HIDDEN, scale=1.0)
    blank = torch.zeros(1, BATCH, HIDDEN)
    state = MemoryLSTMState(blank, blank, torch.zeros(BATCH, WIDTH), StackState.empty(BATCH, WIDTH, like=blank))
    lengths = torch.full((BATCH,), steps)
    wanted = [inputs, recurrent, control, weights.control_bias]

    def gradients(function: Callable[..., MemoryLSTMOutput]) -> list[Tensor]:
        encoded = function(inputs, lengths, state, weights, stretch=0.05)
        out = function(inputs, lengths, encoded.state, weights, stretch=0.05)
        loss = out.hidden.sum() + out.state.read.square().sum()
        return [out.hidden.detach(), *torch.autograd.grad(loss, wanted)]

    agree(gradients(memory_lstm_torch), gradients(literal_stack_lstm), 1e-4)
    competitors = lambda: gradients(memory_lstm_torch), lambda: gradients(literal_stack_lstm)
    ours, theirs = seconds(min(repeats, 7), *competitors)
    details = f"{ours * 1e3:.0f} ms, {theirs * 1e3:.0f} ms"
    report(f"plain torch by hand against autograd, 2 x {steps} steps", ours / theirs, "x", "at most 0.5", details)


# --- A whole run


def stackrev_command() -> list[str]:
    """How to run `stackrev` in a process of its own: this very installation, wherever that is started.

    Ends the program if it would be another one, or one with other kernels, which is not what is being measured.
    """
    alone = [sys.executable, "-P"]  # without the working directory, which may hold a checkout that is not compiled
    code = "import stackrev; from stackrev import kernels; print(stackrev.__file__, kernels.describe(), sep='\\n')"
    there = subprocess.run([*alone, "-c", code], capture_output=True, text=True, check=False).stdout.splitlines()
    here = [stackrev.__file__, kernels.describe()]
    if there != here:
        sys.exit(f"a process of its own would run {there or 'no stackrev'}, not {here}")
    return [*alone, "-m", "stackrev"]


def train(repeats: int) -> None:
    """`stackrev train --seed 0` from the start of the process to its end; refused where something is not right."""
    wall, training = [], []
    for _ in range(min(repeats, 5)):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            command = [*stackrev_command(), *("train", "--model", "stack-lstm", "--seed", "0", "--output", str(run))]
            start = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            wall.append(time.perf_counter() - start)
            last = json.loads((run / "history.jsonl").read_text().splitlines()[-1])
            checkpoint = load(run)
        training.append(float(last["seconds"]))
        for lengths in (checkpoint.config.data.lengths, checkpoint.config.data.test_lengths):
            found = checkpoint.scores[str(lengths)]
            if found["coarse"] != 1 or found["samples"] != checkpoint.config.data.held_out_samples:
                sys.exit(f"not everything is right: {lengths}: {found}")
    details = f"{last['batch']} batches, {' '.join(f'{each:.1f}' for each in wall)}"
    report(f"stackrev train --seed 0, {kernels.describe()}", statistics.median(wall), "s", "at most 6", details)
    report("of which training and its checks", statistics.median(training), "s", "at most 4")


# --- One long string


def pushing_then_popping() -> StackLSTMReverser:
    """A model of the default size whose encoder pushes and whose decoder pops, like one that has learned to reverse."""
    model = StackLSTMReverser(StackLSTMConfig(shared_controls=False), torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        for part, sign in ((model.controls, 1), (model.decoder_controls, -1)):
            part.weight[:, :2] = 0
            part.bias[:2] = torch.tensor([30.0, -30.0]) * sign
    return model


def reverse(stream: Stream, length: int) -> float:
    """Seconds from the first symbol read to the last one written."""
    string = torch.randint(3, vocabulary.SIZE, (length,), generator=torch.Generator().manual_seed(0)).tolist()
    stream.reset()
    start = time.process_time()
    stream.encode(string)
    stream.decode_greedy(vocabulary.SEPARATOR, -1, length)
    return time.process_time() - start


def stream(repeats: int) -> None:
    """A string read and written symbol by symbol, on one core."""
    torch.set_num_threads(1)
    model = pushing_then_popping()
    stream = model.stream()
    string = torch.randint(3, vocabulary.SIZE, (300,), generator=torch.Generator().manual_seed(0))
    stream.encode(string.tolist())
    symbols, ones = string[:, None], torch.tensor([1])
    with torch.no_grad():
        out = model.run(model.encoder, symbols, ones * 300, model.initial_state(1))
        agree([torch.tensor(stream.look().hidden)], [out.hidden[-1, 0]], 1e-4)
        written = stream.decode_greedy(vocabulary.SEPARATOR, -1, 300)
        fed = torch.tensor([vocabulary.SEPARATOR, *written[:-1]])[:, None]
        hidden = model.run(model.decoder, fed, ones * 300, out.state).hidden
        if model.read_out(hidden)[:, 0].argmax(-1).tolist() != written.tolist():
            sys.exit("results disagree: the stream writes something else")
    times = seconds(3, lambda: reverse(stream, 100_000), lambda: reverse(stream, 200_000))
    report("characters a second, 200,000 of them", 200_000 / times[1], "", "at least 50,000")
    report("twice the length, 200,000", times[1] / times[0], "x", "at most 2.2")
    command = [sys.executable, __file__, "--stream-alone", "1000000"]
    megabytes, taken = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    details = f"{1e6 / taken:,.0f} characters a second"
    report("peak memory, 1,000,000 characters, torch included", megabytes, "MiB", "at most 1,536", details)

    stream_commands()


def stream_commands() -> None:
    """The same by the command line with the packaged model, from the start of the process to its end, on one core."""
    generator = torch.Generator().manual_seed(0)
    measured = []
    for length in (1_000_000, 2_000_000):
        codes = torch.randint(ord("a"), ord("z") + 1, (length,), generator=generator)
        text = bytes(codes.tolist()).decode()
        taken, megabytes, written = command_in_a_process("reverse", text)
        if written.rstrip("\n") != text[::-1]:
            sys.exit("stackrev reverse writes something else")
        measured.append((taken, megabytes))
    (once, megabytes), (twice, _) = measured
    report("stackrev reverse, characters a second of 1,000,000", 1e6 / once, "", "at least 50,000")
    report("twice the length, 2,000,000", twice / once, "x", "at most 2.2")
    report("peak memory, 1,000,000 characters", megabytes, "MiB", "at most 1,536")
    taken, megabytes, written = command_in_a_process("evaluate --lengths 1000000 --samples 1 --json")
    if json.loads(written)[0]["coarse"] != 1:
        sys.exit(f"stackrev evaluate finds an error: {written}")
    report("stackrev evaluate, characters a second of 1,000,000", 1e6 / taken, "", "at least 50,000")
    report("peak memory, 1,000,000 characters", megabytes, "MiB", "at most 1,536")


def command_in_a_process(command: str, text: str = "") -> tuple[float, float, str]:
    """The seconds that a command takes on one thread, its peak memory in MiB, and what it writes."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    call = [sys.executable, __file__, "--command", command]
    start = time.perf_counter()
    done = subprocess.run(call, input=text, capture_output=True, text=True, check=True, env=environment)
    return time.perf_counter() - start, float(done.stderr.split()[-1]), done.stdout


def command_alone(arguments: Sequence[str]) -> None:
    """For a process of its own: run a command, and tell its peak memory in MiB last on stderr."""
    code = cli.main(arguments)
    print(peak_memory(), file=sys.stderr)
    sys.exit(code)


def stream_alone(length: int) -> None:
    """For a process of its own: its peak memory in MiB, and the seconds that the string took."""
    taken = reverse(pushing_then_popping().stream(), length)
    print(peak_memory(), taken)


if __name__ == "__main__":
    main()
