"""The kernels as a part of torch: gradcheck, opcheck, torch.compile, no_grad, threads and processes."""

import multiprocessing
import os
import subprocess
import sys
import threading
import warnings

import pytest
import torch

from stackrev.errors import NativeError
from stackrev.kernels import available, using
from stackrev.kernels.cpu import library, ops, recurrence, structures
from stackrev.structures.recurrence import MemoryLSTMState, MemoryLSTMWeights, memory_lstm, memory_lstm_torch
from stackrev.structures.stack import StackState, neural_stack, neural_stack_torch

needs_kernels = pytest.mark.skipif(not available(), reason="the kernels were not compiled")


def flat_call(T=5, B=3, M=2, H=3, K=2, N=2, dtype=torch.float64, ends=1):
    """Lengths, stretch, and the floats in the order of `plain_recurrence.recurrence`, the noise second.

    A deque, of two ends, starts from what a stack would: its lower end is at height 0.
    """
    generator = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    def rand(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    stack = neural_stack_torch(randn(N, B, M), rand(N, B), rand(N, B) / 2)[1]
    floats = [
        *(randn(T, B, 4 * H), randn(T, B, 2 * ends), randn(K, B, H), randn(K, B, H), randn(B, ends * M), *stack),
        *(randn(H, ends * (2 + M)), randn(ends * (2 + M)), randn(ends * M + H, 4 * H)),
        *(randn(2 * H, 4 * H) for _ in range(1, K)),
        *(randn(4 * H) for _ in range(1, K)),
    ]
    lengths = torch.tensor([T, *sorted((max(T - 2 * b, 0) for b in range(1, B)), reverse=True)])
    return lengths, [each.detach().requires_grad_() for each in floats]


def run(function, lengths, floats, layers):
    inputs, noise, hidden, cell, read, *rest = floats
    stack, (control, bias, *lists) = StackState(*rest[:4]), rest[4:]
    weights = MemoryLSTMWeights(tuple(lists[:layers]), tuple(lists[layers:]), control, bias)
    state = MemoryLSTMState(hidden, cell, read, stack)
    out = function(inputs, lengths, state, weights, stretch=0.05, noise=noise)
    return out.hidden, *out.state[:3], out.state.memory.values, out.state.memory.height


def gradients(outputs, floats):
    found = torch.autograd.grad(sum(t.square().sum() for t in outputs), floats, allow_unused=True)
    return [torch.zeros(()) if each is None else each for each in found]


@needs_kernels
def test_gradcheck_of_the_recurrence():
    lengths, floats = flat_call()
    # the stack's heights are constants here: moved apart, touching elements are no stack
    heights = floats[6:9]

    def function(*free):
        return run(memory_lstm, lengths, [*free[:6], *(h.detach() for h in heights), *free[6:]], 2)

    torch.autograd.gradcheck(function, (*floats[:6], *floats[9:]), fast_mode=True)


@needs_kernels
@pytest.mark.parametrize("name", ["stack", "queue", "deque"])
def test_opcheck(name):
    operator = recurrence.OPERATORS[name]
    lengths, floats = flat_call(ends=2 if name == "deque" else 1)
    lengths = torch.full_like(lengths, int(lengths.max()))  # of steps that are not taken anything may be saved
    x, noise, *before, values, bottoms, tops, high, control, bias, one, two, later = floats
    low = None if name == "stack" else bottoms[0].detach().requires_grad_()
    weights = control, bias, [one, two], [later]
    arguments = x, None, lengths, noise, 0.05, 0.1, True, *before, values, bottoms, tops, low, high, *weights
    torch.library.opcheck(operator.opaque, arguments)
    with torch.no_grad():
        outputs = operator.forward(*arguments)
    given = torch.ones_like(outputs[0]), *(None,) * 7, torch.ones_like(high)
    fixed = x, None, lengths, 0.05, 0.1, *before, bottoms, tops, low, high, *weights, list(outputs)
    torch.library.opcheck(operator.opaque_backward, (*_detached(fixed), *given))


def _detached(arguments):
    return [
        each.detach() if isinstance(each, torch.Tensor) else _detached(each) if isinstance(each, list) else each
        for each in arguments
    ]


@needs_kernels
@pytest.mark.parametrize("name", ["stack", "queue", "deque"])
@pytest.mark.parametrize("deep", [False, True])
def test_opcheck_of_a_structure(name, deep):
    operator = structures.OPERATORS[name]
    ends = (2,) if name == "deque" else ()
    values, push, pop = torch.randn(10 if ends else 6, 3, 2), *torch.rand(2, 4, *ends, 3, dtype=torch.float64)
    first = torch.rand(2, 2, 3, dtype=torch.float64)
    bottoms, tops, high = neural_stack_torch(values[:2], *first)[1][1:]
    low = None if name == "stack" else bottoms[0].clone()
    depth = torch.rand(4, 3, dtype=torch.float64) + 0.5 if deep else None
    call = values, push, pop, depth, bottoms, tops, low, high
    call = [None if each is None else each.detach().requires_grad_() for each in call]
    torch.library.opcheck(operator.opaque, tuple(call))
    results = structures.Results(*(each.detach() for each in operator.forward(*call)))
    values, push, _, *rest = _detached(call)
    saved = results.bottoms, results.levels, results.links
    at_the_bottom = torch.ones(4, 3, 2) if ends else None
    given = torch.ones(4, 3, 2), at_the_bottom, None, None, None, torch.ones_like(high)
    torch.library.opcheck(operator.opaque_backward, (values, push, *rest, *saved, *given))


@needs_kernels
def test_compiled_as_an_opaque_operator():
    torch._dynamo.reset()
    lengths, floats = flat_call()
    values, push, pop = (
        t.detach().requires_grad_() for t in (torch.randn(6, 3, 2), torch.rand(6, 3), torch.rand(6, 3))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the compiler itself has to say
        compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
        stack = torch.compile(neural_stack, backend="aot_eager", fullgraph=True)
        ours = compiled(memory_lstm, lengths, floats, 2)
        reads = stack(values, push, pop)[0]
        gradients = torch.autograd.grad(sum(t.sum() for t in ours), floats, allow_unused=True)
        stack_gradients = torch.autograd.grad(reads.square().sum(), (values, push, pop))
    theirs = run(memory_lstm_torch, lengths, floats, 2)
    expected = torch.autograd.grad(sum(t.sum() for t in theirs), floats, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-10)
    for a, b in zip(gradients, expected, strict=True):
        assert (a is None) == (b is None) or (a if b is None else b).abs().max() == 0
        assert a is None or b is None or torch.allclose(a, b, atol=1e-10)
    reads = neural_stack_torch(values, push, pop)[0]
    for a, b in zip(stack_gradients, torch.autograd.grad(reads.square().sum(), (values, push, pop)), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@needs_kernels
def test_without_gradients_nothing_is_saved(monkeypatch):
    lengths, floats = flat_call()
    kept = []
    original = recurrence.OPERATORS["stack"].forward
    monkeypatch.setattr(
        recurrence.OPERATORS["stack"], "forward", lambda *call: kept.append(original(*call)) or kept[-1]
    )
    with torch.no_grad():
        outputs = run(memory_lstm, lengths, floats, 2)
    assert all(t.numel() == 0 for t in kept[0][13:])
    run(memory_lstm, lengths, floats, 2)
    assert all(t.numel() > 0 for t in kept[1][13:])
    for a, b in zip(outputs, run(memory_lstm_torch, lengths, floats, 2), strict=True):
        assert not a.requires_grad
        assert torch.allclose(a, b, atol=1e-10)


@needs_kernels
def test_second_derivatives_are_refused():
    values, push, pop = (t.requires_grad_() for t in (torch.randn(3, 1, 2), torch.rand(3, 1), torch.rand(3, 1)))
    reads, _ = neural_stack(values, push, pop)
    (gradient,) = torch.autograd.grad(reads.square().sum(), push, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.sum().backward()


@needs_kernels
@pytest.mark.parametrize("lengths", [[6, 1, 1], [5, 3, 4], [5, 1, -1]])
@pytest.mark.parametrize("function", [memory_lstm, memory_lstm_torch])
def test_wrong_lengths_are_refused(function, lengths):
    _, floats = flat_call()
    with pytest.raises(ValueError, match="lengths must fall"):
        run(function, torch.tensor(lengths), floats, 2)


@needs_kernels
def test_the_number_of_threads_does_not_matter():
    lengths, floats = flat_call(T=9, B=101)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            outputs = run(memory_lstm, lengths, floats, 2)
            results.append([*outputs, *gradients(outputs, floats)])
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(result, results[0], strict=True))


@needs_kernels
def test_many_callers_at_once():
    lengths, floats = flat_call(T=20, B=7)
    expected = run(memory_lstm, lengths, floats, 2)[0]
    wrong = []

    def work():
        for _ in range(20):
            if not torch.equal(run(memory_lstm, lengths, floats, 2)[0], expected):
                wrong.append(1)

    callers = [threading.Thread(target=work) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def _in_a_child(results) -> None:
    # torch's threads do not survive a fork: the kernels start their own
    lengths, floats = flat_call()
    results.put(run(memory_lstm, lengths, [t.detach() for t in floats], 2)[0].sum().item())


@needs_kernels
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_after_a_fork():
    lengths, floats = flat_call()
    torch.set_num_threads(max(2, torch.get_num_threads()))
    expected = run(memory_lstm, lengths, floats, 2)[0].sum().item()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=_in_a_child, args=(results,)) for _ in range(2)]
    for child in children:
        child.start()
    assert [results.get(timeout=60) for _ in children] == [expected] * 2
    for child in children:
        child.join(60)
        assert child.exitcode == 0


def test_turned_off(monkeypatch):
    code = "from stackrev.kernels import available, describe; print(available(), describe())"
    environment = {**os.environ, "STACKREV_NATIVE": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False plain torch: turned off by STACKREV_NATIVE=0")
    lengths, floats = flat_call()
    before = run(memory_lstm, lengths, floats, 2)
    monkeypatch.setattr(library, "NATIVE", library.find("0"))
    monkeypatch.setattr(recurrence.OPERATORS["stack"], "forward", None)  # nothing may call it
    for a, b in zip(before, run(memory_lstm, lengths, floats, 2), strict=True):
        assert torch.allclose(a, b, atol=1e-10)


@needs_kernels
def test_a_wish_that_is_none_is_told():
    found = library.find("off")
    assert found.library is not None
    assert found.missing.startswith("STACKREV_NATIVE=off is none of 0, 1, baseline, avx2, avx512")
    assert library.find("1").missing == library.find(None).missing


@needs_kernels
@pytest.mark.parametrize("instructions", library.SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_set_of_instructions_gives_the_same(monkeypatch, instructions, dtype):
    found = library.find(instructions)
    if found.library is None:
        assert instructions in found.missing
        pytest.skip(found.missing)
    assert found.instructions == instructions
    monkeypatch.setattr(library, "NATIVE", found)
    for size in (3, 17):
        lengths, floats = flat_call(T=9, B=14, M=5, H=size, dtype=dtype)
        ours, theirs = (run(function, lengths, floats, 2) for function in (memory_lstm, memory_lstm_torch))
        gradients = [torch.autograd.grad(sum(t.sum() for t in out), floats) for out in (ours, theirs)]
        for a, b in zip((*ours, *gradients[0]), (*theirs, *gradients[1]), strict=True):
            assert torch.allclose(a, b, rtol=0, atol=b.abs().max().item() * (1e-5 if dtype == torch.float32 else 1e-10))


@needs_kernels
def test_what_the_kernels_cannot_take_is_an_error_if_they_are_forced():
    values, strengths = torch.randn(3, 1, 2), torch.rand(3, 1)
    with using("compiled"):
        neural_stack(values, strengths, strengths)
        with pytest.raises(NativeError, match="not all float32 or all float64"):
            neural_stack(values.half(), strengths, strengths)
        with pytest.raises(NativeError, match="not all tensors are on the CPU"):
            neural_stack(values, strengths.to("meta"), strengths)
        with pytest.raises(NativeError, match=r"torch\.func"):
            torch.func.grad(lambda push: neural_stack(values, push, strengths)[0].sum())(strengths)
        neural_stack(values[:, :0], strengths[:, :0], strengths[:, :0])  # nothing to compute


@needs_kernels
def test_a_forced_implementation_is_the_one_that_runs(monkeypatch):
    lengths, floats = flat_call()
    with using("torch"):
        plain = run(memory_lstm, lengths, floats, 2)
    assert all(torch.equal(a, b) for a, b in zip(plain, run(memory_lstm_torch, lengths, floats, 2), strict=True))
    used = []
    original = recurrence.OPERATORS["stack"].forward
    monkeypatch.setattr(recurrence.OPERATORS["stack"], "forward", lambda *call: used.append(1) or original(*call))
    with using("compiled"):
        run(memory_lstm, lengths, floats, 2)
    assert used


def test_import_without_torch():
    code = "import sys, stackrev.kernels.cpu.library; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_kernels
@pytest.mark.parametrize("threads", [1, 2, 3, 50])
def test_threads_of_our_own_give_the_same(threads):
    """Where torch has no OpenMP threads to lend, the kernels start theirs."""

    def everything():
        lengths, floats = flat_call(B=7, H=17)
        outputs = run(memory_lstm, lengths, floats, 2)
        return [*outputs, *gradients(outputs, floats)]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert ops.borrow_threads(library.NATIVE.library) or "GNU" not in torch.__config__.show()
        borrowed = everything()
        library.NATIVE.library.stackrev_borrow_threads(None)
        ours = everything()
    finally:
        torch.set_num_threads(before)
        ops.borrow_threads(library.NATIVE.library)
    assert all(torch.equal(a, b) for a, b in zip(borrowed, ours, strict=True))


@needs_kernels
@torch.no_grad()
def test_a_tracer_sees_the_operator():
    lengths, floats = flat_call()
    inputs, *fixed = (each.detach() for each in floats)

    def hidden(x):
        return run(memory_lstm, lengths, [x, *fixed], 2)[0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated
        traced = torch.jit.trace(hidden, inputs, check_trace=False)
    other = torch.randn_like(inputs)
    assert torch.equal(traced(other), hidden(other))
