"""The compiled read-out against plain torch: losses, every gradient, and what is right."""

import math

import pytest
import torch
from torch import Tensor

from stackrev.kernels import available, dispatch, using
from stackrev.readout import ReadOutWeights, pack, read_out, read_out_loss, read_out_right

pytestmark = pytest.mark.skipif(not available(), reason="the kernels were not compiled")
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


def random_call(T, B, H, V, *, dtype=torch.float64, scale=1.0, seed=0):
    """Hidden states, targets, steps and weights; the first row takes all steps."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).to(dtype).requires_grad_()

    steps = torch.randint(1, T + 1, (B,), generator=generator).sort(descending=True).values
    steps[0] = T
    weights = ReadOutWeights(randn(H, H), randn(H), randn(V, H), randn(V))
    return randn(T, B, H), torch.randint(V, (T, B), generator=generator), steps, weights


def results(call, temperature=1.0) -> list[Tensor]:
    """Both losses, and the gradients of twice the first."""
    hidden, targets, steps, weights = call
    loss, at_one = read_out_loss(hidden, targets, steps, weights, temperature=temperature)
    assert not at_one.requires_grad
    return [loss.detach(), at_one, *torch.autograd.grad(2 * loss, (hidden, *weights))]


def plain(function, *arguments):
    with using("torch"):
        return function(*arguments)


def compiled(function, *arguments):
    with using("compiled"):
        return function(*arguments)


def assert_close(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        error = (a - b).abs().max() / b.abs().max().clamp(min=1e-3)
        assert error <= tolerance, f"{index}: {error}"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    ("T", "B", "H", "V"),
    [(1, 1, 1, 1), (1, 3, 5, 2), (2, 50, 16, 131), (7, 3, 64, 131), (65, 50, 64, 131), (130, 1, 7, 33)],
)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_losses_and_gradients(T, B, H, V, temperature, threads, dtype):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        call = random_call(T, B, H, V, dtype=dtype, scale=0.5)
        assert_close(compiled(results, call, temperature), plain(results, call, temperature), TOLERANCE[dtype])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("scale", [0.0, 1e-4, 30.0])
def test_logits_of_any_size(scale):
    call = random_call(9, 5, 8, 20, scale=scale)
    assert_close(compiled(results, call), plain(results, call), 1e-9)


def test_gradcheck():
    hidden, targets, steps, weights = random_call(4, 3, 5, 6)

    def loss(*inputs):
        return read_out_loss(inputs[0], targets, steps, ReadOutWeights(*inputs[1:]), temperature=2.0)[0]

    assert torch.autograd.gradcheck(loss, (hidden, *weights))


def test_a_step_that_no_row_takes_has_no_gradient_and_is_not_right():
    hidden, targets, steps, weights = random_call(6, 3, 4, 5)
    steps = torch.tensor([5, 2, 0])
    loss, _ = read_out_loss(hidden, targets, steps, weights)
    (gradient,) = torch.autograd.grad(loss, [hidden])
    taken = torch.arange(6)[:, None] < steps
    assert (gradient[~taken] == 0).all()
    assert (gradient[taken] != 0).any(-1).all()
    assert not read_out_right(hidden, targets, steps, weights)[~taken].any()


def test_what_is_not_finite_is_told():
    for number in (math.nan, math.inf):
        hidden, targets, steps, weights = random_call(3, 2, 4, 5)
        with torch.no_grad():
            weights.logits[1, 2] = number
        loss, at_one = read_out_loss(hidden, targets, steps, weights, temperature=3.0)
        assert not loss.isfinite()
        assert not at_one.isfinite()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_is_right(dtype):
    hidden, targets, steps, weights = random_call(40, 30, 16, 3, dtype=dtype)
    ours = compiled(read_out_right, hidden, targets, steps, weights)
    assert 0.1 < ours.double().mean() < 0.5
    assert torch.equal(ours, plain(read_out_right, hidden, targets, steps, weights))
    logits = read_out(pack(hidden, steps), weights)
    assert torch.equal(pack(ours, steps), logits.argmax(-1) == pack(targets, steps))


def test_of_equal_logits_the_first_is_the_greatest():
    zeros = ReadOutWeights(torch.zeros(4, 4), torch.zeros(4), torch.zeros(9, 4), torch.zeros(9))
    targets = torch.tensor([[0, 1, 8]])
    assert read_out_right(torch.zeros(1, 3, 4), targets, torch.tensor([1, 1, 1]), zeros).tolist() == [
        [True, False, False]
    ]


@pytest.mark.parametrize("way", [compiled, plain])
class TestWrongArguments:
    def test_unknown_targets(self, way):
        hidden, targets, steps, weights = random_call(3, 2, 4, 5)
        for wrong in (targets + 5, targets - 5, torch.full_like(targets, -100)):
            with pytest.raises(IndexError):
                way(read_out_loss, hidden, wrong, steps, weights)

    def test_targets_of_steps_that_are_not_taken_may_be_anything(self, way):
        hidden, targets, _, weights = random_call(3, 2, 4, 5)
        steps = torch.tensor([3, 1])
        padded = targets.where(torch.arange(3)[:, None] < steps, torch.tensor(-1))
        for each in (padded, padded.int()):
            ours = way(read_out_loss, hidden, each, steps, weights)
            assert torch.equal(ours[0], way(read_out_loss, hidden, targets, steps, weights)[0])

    @pytest.mark.parametrize("function", [read_out_loss, read_out_right])
    @pytest.mark.parametrize("name", ["targets", "steps", "output", "output bias", "logits", "logits bias"])
    def test_wrong_shapes(self, function, name, way):
        hidden, targets, steps, weights = random_call(3, 2, 4, 5)
        names = ("targets", "steps", "output", "output bias", "logits", "logits bias")
        call = dict(zip(names, (targets, steps, *weights), strict=True))
        call[name] = call[name][..., :-1] if name == "logits" else call[name][:-1]
        targets, steps, *weights = call.values()
        with pytest.raises(ValueError, match=f"^{name} has the shape"):
            way(function, hidden, targets, steps, ReadOutWeights(*weights))

    @pytest.mark.parametrize("steps", [[2, 3], [4, 1], [3, -1]])
    def test_wrong_steps(self, steps, way):
        hidden, targets, _, weights = random_call(3, 2, 4, 5)
        with pytest.raises(ValueError, match="lengths must fall"):
            way(read_out_loss, hidden, targets, torch.tensor(steps), weights)

    def test_wrong_dimensions(self, way):
        hidden, targets, steps, weights = random_call(3, 2, 4, 5)
        with pytest.raises(ValueError, match="dimensions"):
            way(read_out_loss, hidden[0], targets, steps, weights)


def test_what_is_elsewhere_is_not_touched():
    hidden, targets, steps, weights = random_call(3, 2, 4, 5)
    assert dispatch.kernels_for((hidden, *weights), indices=(targets, steps)) is not None
    assert dispatch.kernels_for((hidden, *weights), indices=(targets.to("meta"), steps)) is None
    with torch.device("meta"):
        assert results((hidden, targets, steps, weights))[0].device.type == "cpu"
        assert read_out_right(hidden, targets, steps, weights).device.type == "cpu"


def test_a_second_derivative_is_refused():
    hidden, targets, steps, weights = random_call(3, 2, 4, 5)
    loss, _ = read_out_loss(hidden, targets, steps, weights)
    (gradient,) = torch.autograd.grad(loss, [weights.logits], create_graph=True)
    assert torch.equal(
        gradient, torch.autograd.grad(read_out_loss(hidden, targets, steps, weights)[0], weights.logits)[0]
    )
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.square().sum().backward()


def test_results_are_one_s_own():
    hidden, targets, steps, weights = random_call(3, 2, 4, 5)
    loss, at_one = read_out_loss(hidden, targets, steps, weights)
    (first,) = torch.autograd.grad(loss, [hidden], retain_graph=True)
    kept = first.clone()
    first.zero_()
    assert torch.equal(torch.autograd.grad(loss, [hidden], retain_graph=True)[0], kept)
    loss /= 2
    at_one /= 2
    assert torch.allclose(torch.autograd.grad(loss, [hidden])[0], kept / 2)


@pytest.mark.parametrize("place", [0, 5, 19])
def test_where_a_logit_is_not_a_number_nothing_is_right(place):
    hidden, targets, steps, weights = random_call(20, 10, 8, 20)
    with torch.no_grad():
        weights.logits_bias[place] = math.nan
    assert not read_out_right(hidden, targets, steps, weights).any()
    assert not plain(read_out_right, hidden, targets, steps, weights).any()


def test_a_logit_that_rules_its_symbol_out():
    call = random_call(5, 3, 4, 6)
    targets = call[1].clamp(min=1)
    with torch.no_grad():
        call[3].logits_bias[0] = -math.inf
    call = call[0], targets, *call[2:]
    assert_close(compiled(results, call), plain(results, call), 1e-10)


def test_any_layout():
    hidden, targets, steps, weights = random_call(5, 3, 4, 6)
    turned = hidden.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    weights = ReadOutWeights(*(w.detach().repeat_interleave(2, 0)[::2].requires_grad_() for w in weights))
    call = turned, targets.T.contiguous().T, steps.int(), weights
    assert_close(compiled(results, call), plain(results, call), 1e-10)
