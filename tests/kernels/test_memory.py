"""Memory that is used again: never while anything can still see it."""

import gc
import subprocess
import sys
import threading

import pytest
import torch

from stackrev.kernels import available
from stackrev.kernels.cpu import memory
from stackrev.kernels.cpu.memory import SMALLEST, contiguous, new_empty
from stackrev.structures.stack import neural_stack, neural_stack_torch

pytestmark = [
    pytest.mark.skipif(not available(), reason="the kernels were not compiled"),
    pytest.mark.skipif(sys.platform != "linux", reason="only there is memory used again"),
]
ROWS = SMALLEST // 4  # of one float each


def test_what_is_gone_is_used_again():
    first = new_empty(torch.zeros(0), ROWS)
    place = first.data_ptr()
    del first
    assert new_empty(torch.zeros(0), ROWS).data_ptr() == place


@pytest.mark.parametrize(
    "hold",
    [
        lambda tensor: tensor[-1:],
        lambda tensor: tensor.detach().view(2, -1),
        lambda tensor: tensor.numpy()[5:],
        lambda tensor: memoryview(tensor.numpy()),
        lambda tensor: torch.utils.dlpack.to_dlpack(tensor),
        lambda tensor: tensor.untyped_storage(),
    ],
)
def test_what_is_seen_is_not_used_again(hold):
    tensor = new_empty(torch.zeros(0), ROWS).zero_()
    place, held = tensor.data_ptr(), hold(tensor)
    del tensor
    gc.collect()
    other = new_empty(torch.zeros(0), ROWS)
    assert other.data_ptr() != place
    other.fill_(1)
    del held
    assert new_empty(torch.zeros(0), ROWS).data_ptr() == place


def test_no_more_than_half_is_wasted(monkeypatch):
    monkeypatch.setattr(memory, "_idle", [])
    large = new_empty(torch.zeros(0), 8 * ROWS)
    place = large.data_ptr()
    del large
    assert new_empty(torch.zeros(0), ROWS).data_ptr() != place
    assert new_empty(torch.zeros(0), 7 * ROWS).data_ptr() == place


def test_it_is_like_any_other_tensor():
    for like in (torch.zeros(1), torch.zeros(1, dtype=torch.float64)):
        tensor = new_empty(like, 2, 3, ROWS)
        assert tensor.shape == (2, 3, ROWS)
        assert tensor.dtype == like.dtype
        assert tensor.is_contiguous()
        assert not tensor._is_view()
        assert not tensor.requires_grad
        tensor.fill_(7)
        assert (tensor == 7).all()
        assert torch.equal(tensor.clone(), tensor)


def test_small_and_empty_tensors_come_from_torch():
    assert new_empty(torch.zeros(0), 3, 5).shape == (3, 5)
    assert new_empty(torch.zeros(0), 0, 5).shape == (0, 5)


def test_more_than_there_is_is_torch_s_own_error():
    with pytest.raises(RuntimeError, match="memory"):
        new_empty(torch.zeros(0), 2**45)


def test_contiguous():
    matrix = torch.rand(2048, 2048)
    assert contiguous(matrix) is matrix
    assert torch.equal(contiguous(matrix.T), matrix.T)
    assert contiguous(matrix.T).is_contiguous()


def test_large_results_are_right_when_memory_is_used_again():
    T, B, M = 700, 50, 64
    generator = torch.Generator().manual_seed(0)
    call = [torch.rand(shape, generator=generator).requires_grad_() for shape in ((T, B, M), (T, B), (T, B))]
    for seed in range(3):
        weight = torch.randn(T, B, M, generator=torch.Generator().manual_seed(seed))
        reads, _ = neural_stack(*call)
        assert reads.numel() * 4 >= SMALLEST
        gradients = torch.autograd.grad(reads, call, weight)
        if seed == 0:
            expected = neural_stack_torch(*call)[0]
            wanted = torch.autograd.grad(expected, call, weight)
            torch.testing.assert_close(reads, expected, rtol=0, atol=1e-5)
            for ours, theirs in zip(gradients, wanted, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
            kept = [reads.detach(), *gradients]
            copies = [tensor.clone() for tensor in kept]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(kept, copies, strict=True))


def test_it_cannot_be_resized():
    with pytest.raises(RuntimeError, match="resiz"):
        new_empty(torch.zeros(0), ROWS).resize_(2 * ROWS)


def test_processes_that_fork_while_another_thread_takes_memory():
    """In a process of its own, since it forks beside a thread. The child finds whole lists, and no lock of ours.

    Torch has locks: the first call of an operator initialises static variables, and a child that is forked while
    another thread does that waits for ever. So everything that the child calls has been called before.
    """
    code = """
import os, threading, torch
from stackrev.kernels.cpu.memory import SMALLEST, new_empty
torch.set_num_threads(1)  # OpenMP's threads do not survive a fork

def take():
    while True:
        new_empty(torch.zeros(0), SMALLEST // 4)
        taken.set()

new_empty(torch.zeros(0), SMALLEST // 4).fill_(1)
taken = threading.Event()
threading.Thread(target=take, daemon=True).start()
taken.wait()
for _ in range(20):
    child = os.fork()
    if child == 0:
        new_empty(torch.zeros(0), SMALLEST // 4).fill_(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
print("done", flush=True)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "done\n", done.stderr


def test_a_child_s_memory_is_its_own():
    code = """
import os, torch
from stackrev.kernels.cpu.memory import SMALLEST, new_empty
torch.set_num_threads(1)  # OpenMP's threads do not survive a fork

tensor = new_empty(torch.zeros(0), SMALLEST // 4).fill_(1)
child = os.fork()
if child == 0:
    tensor.fill_(2)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(tensor.sum().item() == SMALLEST // 4)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr


def test_threads_that_take_memory_at_once_never_share_it():
    wrong = []

    def work(number):
        for _ in range(60):
            tensor = new_empty(torch.zeros(0), ROWS).fill_(number)
            if not bool((tensor == number).all()):
                wrong.append(number)
            del tensor

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_is_idle_has_a_bound(monkeypatch):
    monkeypatch.setattr(memory, "_KEPT", 3 * SMALLEST)
    monkeypatch.setattr(memory, "_idle", [])
    held = [new_empty(torch.zeros(0), ROWS) for _ in range(5)]
    places = [tensor.data_ptr() for tensor in held]
    while held:
        held.pop(0)
    assert len(memory._idle) == 3
    again = [new_empty(torch.zeros(0), ROWS) for _ in range(3)]
    assert {tensor.data_ptr() for tensor in again} == set(places[2:])


def test_idle_memory_makes_room_where_address_space_is_bounded():
    """In a process of its own, which has little address space left beside what is idle."""
    code = """
import resource, torch
from stackrev.kernels.cpu.memory import new_empty

kept = new_empty(torch.zeros(0), 150 << 20)
del kept
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20),) * 2)
print(new_empty(torch.zeros(0), 50 << 20).fill_(1).sum().item())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "52428800.0\n", done.stderr
