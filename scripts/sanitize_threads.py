"""Calls the kernels on several threads of their own, for ThreadSanitizer; scripts/sanitize.sh builds and runs it.

The kernels are called from several threads of Python at once, and each call starts threads itself: torch's own, which
the sanitizer cannot see into, are not borrowed. Results are compared with those of one thread.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from stackrev import load
from stackrev.kernels import available, describe
from stackrev.kernels.cpu import ops
from stackrev.kernels.cpu.library import NATIVE
from stackrev.structures.deque import DequeState, neural_deque
from stackrev.structures.queue import QueueState, neural_queue
from stackrev.structures.recurrence import MemoryLSTMState, MemoryLSTMWeights, memory_lstm
from stackrev.structures.stack import StackState, neural_stack

T, B, M, H = 12, 9, 5, 6
STRUCTURES = {
    "stack": (neural_stack, StackState, 1),
    "queue": (neural_queue, QueueState, 1),
    "deque": (neural_deque, DequeState, 2),
}


def alone(name: str) -> list[Tensor]:
    """Reads and gradients of a structure given all its controls."""
    function, _, ends = STRUCTURES[name]
    generator = torch.Generator().manual_seed(0)
    call = [torch.randn(T, B, M, generator=generator).requires_grad_() for _ in range(ends)]
    call += [torch.rand(T, B, generator=generator).requires_grad_() for _ in range(2 * ends)]
    *reads, _ = function(*call)  # type: ignore[operator]
    return [*reads, *torch.autograd.grad(sum(each.square().sum() for each in reads), call)]


def controlled(name: str) -> list[Tensor]:
    """Hidden states and gradients of the recurrence on a structure."""
    _, state, ends = STRUCTURES[name]
    generator, read = torch.Generator().manual_seed(0), ends * M

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    inputs, recurrent = normal(T, B, 4 * H), normal(read + H, 4 * H)
    control, bias = normal(H, 2 * ends + read), normal(2 * ends + read)
    nothing = torch.zeros(1, B, H)
    before = MemoryLSTMState(nothing, nothing, torch.zeros(B, read), state.empty(B, M, like=nothing))  # type: ignore
    lengths = torch.arange(B, 0, -1) + T - B
    weights = MemoryLSTMWeights((recurrent,), (), control, bias)
    out = memory_lstm(inputs, lengths, before, weights, stretch=0.05)
    wanted = [inputs, recurrent, control, bias]
    return [out.hidden, *torch.autograd.grad(out.hidden.square().sum(), wanted)]


def streamed() -> list[Tensor]:
    """What the packaged model answers to lines that threads share."""
    lines = ["x" * length + "yz" for length in range(1, 120)]
    answers = load("stack-lstm").reverse(lines)
    if answers != [line[::-1] for line in lines]:
        sys.exit("lines are reversed wrongly")
    return []


def main() -> None:
    """Run everything, first on one thread and then on several."""
    if not available() or NATIVE.library is None:
        sys.exit("the kernels are not there")
    print(describe())
    if not ops.unwatched(()):
        sys.exit("the kernels are not called directly")
    NATIVE.library.stackrev_borrow_threads(None)  # after the import of `ops`, which borrows them
    jobs: list[Callable[[], list[Tensor]]] = [streamed]
    for name in STRUCTURES:
        jobs += [lambda name=name: alone(name), lambda name=name: controlled(name)]  # type: ignore[misc]
    torch.set_num_threads(1)
    expected = [job() for job in jobs]
    torch.set_num_threads(3)
    wrong: list[int] = []

    def work() -> None:
        for number, job in enumerate(jobs):
            for ours, theirs in zip(job(), expected[number], strict=True):
                if not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5):
                    wrong.append(number)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        sys.exit(f"several threads give other results: {wrong}")
    print("several threads give the same")


if __name__ == "__main__":
    main()
