"""Parts of the benchmark: how fast the compiled queue and deque are, alone, in a training step and on a long string."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from measuring import agree, report, seconds
from torch import Tensor

from stackrev import kernels
from stackrev.kernels.dispatch import Implementation
from stackrev.kinds.deque_lstm import DequeLSTMConfig
from stackrev.kinds.queue_lstm import QueueLSTMConfig
from stackrev.models.deque_lstm import DequeLSTMReverser
from stackrev.models.memory_lstm import MemoryLSTMReverser
from stackrev.models.queue_lstm import QueueLSTMReverser
from stackrev.readout import read_out_loss
from stackrev.structures.deque import neural_deque
from stackrev.structures.queue import neural_queue
from stackrev.tasks import vocabulary
from stackrev.tasks.batches import Batch, make_batch
from stackrev.training.optimizers import Optimizer
from stackrev.training_config import TrainingConfig

BATCH, WIDTH = 50, 64
ENDS = {"queue": 1, "deque": 2}
AT_LEAST = {"queue": 60, "deque": 40}


def controls(name: str, steps: int, batch: int = BATCH) -> list[Tensor]:
    """Values, pushes and pops of all ends, all wanting a gradient."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(steps, batch, WIDTH)] * ENDS[name] + [(steps, batch)] * (2 * ENDS[name])
    return [torch.rand(shape, generator=generator).requires_grad_() for shape in shapes]


def both_ways(name: str, implementation: Implementation, call: list[Tensor], weight: Tensor) -> tuple[Tensor, ...]:
    """The reads, and the gradients of a weighting of them."""
    with kernels.using(implementation):
        *reads, _ = neural_queue(*call) if name == "queue" else neural_deque(*call)
    gradients = torch.autograd.grad(reads, call, [weight] * len(reads))
    return *(each.detach() for each in reads), *gradients


def memories(repeats: int) -> None:
    """Queue and deque, forward and backward, against the column form in plain torch, on one thread."""
    torch.set_num_threads(1)
    weight = torch.randn(512, BATCH, WIDTH, generator=torch.Generator().manual_seed(1))
    for name in ENDS:
        exact = [each.detach().double().requires_grad_() for each in controls(name, 130, 3)]
        small = weight[:130, :3].double()
        agree(*(both_ways(name, each, exact, small) for each in ("compiled", "torch")), tolerance=1e-10)
        call = controls(name, 512)
        fast, slow = seconds(
            min(repeats, 3),
            functools.partial(both_ways, name, "compiled", call, weight),
            functools.partial(both_ways, name, "torch", call, weight),
        )
        details = f"{fast * 1e3:.1f} ms, {slow * 1e3:.0f} ms"
        what = f"neural_{name} against the column form, T = 512, 1 thread"
        report(what, slow / fast, "x", f"at least {AT_LEAST[name]}", details)


def memory_growth(repeats: int) -> None:
    """Time and what is saved for the backward pass, per doubling of T, on one thread.

    A length and its double are measured in turn, so that both meet the same load of the machine, and a call finds its
    tensors where the other has left them: not in the cache nearest to the processor if the two together exceed it.
    """
    torch.set_num_threads(1)
    for name in ENDS:
        call, weight = controls(name, 128), torch.ones(128, BATCH, WIDTH)
        agree(*(both_ways(name, each, call, weight) for each in ("compiled", "torch")), tolerance=1e-5)
        growths = [growth_from(name, 128 * 2**i, repeats) for i in range(7)]  # all calls at once would need much memory
        for what, ratios in zip(("time", "memory saved"), zip(*growths, strict=True), strict=True):
            details = " ".join(f"{ratio:.2f}" for ratio in ratios)
            report(f"{name}: {what} per doubling of T, 128 to 16,384", max(ratios), "x", "at most 2.2", details)


def growth_from(name: str, steps: int, repeats: int) -> tuple[float, float]:
    """How many times as long twice so many steps take, and as much memory."""
    calls = [(controls(name, each), torch.ones(1, 1, 1).expand(each, BATCH, WIDTH)) for each in (steps, 2 * steps)]
    repeats = min(repeats, 5) if steps > 2048 else 3 * repeats
    once, twice = seconds(repeats, *(functools.partial(both_ways, name, "compiled", *each) for each in calls))
    return twice / once, saved_by(name, calls[1][0]) / saved_by(name, calls[0][0])


def saved_by(name: str, call: list[Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass, the inputs included."""
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        neural_queue(*call) if name == "queue" else neural_deque(*call)
    return sum(kept)


def models() -> dict[str, MemoryLSTMReverser]:
    """A queue-LSTM and a deque-LSTM of the default sizes."""
    generator = torch.Generator().manual_seed(0)
    return {
        "queue": QueueLSTMReverser(QueueLSTMConfig(), generator),
        "deque": DequeLSTMReverser(DequeLSTMConfig(), generator),
    }


def memory_step(repeats: int) -> None:
    """A training step of the default models against plain torch, on two threads."""
    torch.set_num_threads(2)
    generator = torch.Generator().manual_seed(0)
    batch = make_batch(list(torch.randint(3, vocabulary.SIZE, (BATCH, 36), generator=generator)))
    for name, model in models().items():
        model.train()
        optimizer = Optimizer(TrainingConfig(), model)
        step_agrees(model, batch)
        fast, slow = seconds(
            min(repeats, 7),
            functools.partial(train, "compiled", model, optimizer, batch),
            functools.partial(train, "torch", model, optimizer, batch),
        )
        details = f"{fast * 1e3:.2f} ms, {slow * 1e3:.1f} ms"
        report(f"{name}-LSTM: training step, length 36, against plain torch", slow / fast, "x", "at least 5", details)


def gradients(implementation: Implementation, model: MemoryLSTMReverser, batch: Batch) -> list[Tensor]:
    """Of all parameters, with the same noise every time."""
    model.zero_grad()
    with kernels.using(implementation):
        hidden = model.hidden(batch, generator=torch.Generator().manual_seed(1))
        loss, _ = read_out_loss(hidden, batch.target, batch.steps, model.read_out_weights)
    loss.backward()  # type: ignore[no-untyped-call]
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def step_agrees(model: MemoryLSTMReverser, batch: Batch) -> None:
    """End the program if the implementations do not agree."""
    ours, theirs = ([each.clone() for each in gradients(one, model, batch)] for one in ("compiled", "torch"))
    agree(ours, theirs, 1e-4)


def train(implementation: Implementation, model: MemoryLSTMReverser, optimizer: Optimizer, batch: Batch) -> None:
    """One training step."""
    gradients(implementation, model, batch)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def memory_stream(_: int) -> None:
    """A string read and written symbol by symbol, on one core; the encoder only pushes and the decoder only pops."""
    torch.set_num_threads(1)
    for name, model in models().items():
        gates = ([30.0, -30.0], [-30.0, 30.0]) if name == "queue" else ([30.0, -30.0] * 2, [-30.0, 30.0] * 2)
        with torch.no_grad():
            for part, biases in zip((model.controls, model.decoder_controls), gates, strict=True):
                part.weight[:, : len(biases)] = 0
                part.bias[: len(biases)] = torch.tensor(biases)
        times = seconds(1, *(functools.partial(through, model, length) for length in (100_000, 200_000)))
        report(f"{name}-LSTM: characters a second, 200,000 of them", 200_000 / times[1], "", "at least 40,000")
        report(f"{name}-LSTM: twice the length, 200,000", times[1] / times[0], "x", "at most 2.2")


def through(model: MemoryLSTMReverser, length: int) -> Sequence[int]:
    """What a stream writes after a string of that length."""
    string = torch.randint(3, vocabulary.SIZE, (length,), generator=torch.Generator().manual_seed(0)).tolist()
    stream = model.stream()
    stream.encode(string)
    return stream.decode_greedy(vocabulary.SEPARATOR, -1, length)


PARTS = {
    "memories": memories,
    "memory-growth": memory_growth,
    "memory-step": memory_step,
    "memory-stream": memory_stream,
}
