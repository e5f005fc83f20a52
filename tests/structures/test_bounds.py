"""Bounds for all strings: they hold every state there can be, they are as tight as they say, and they derive."""

from __future__ import annotations

import itertools

import pytest
import torch
from shapes import shape_of
from torch import Tensor

from stackrev.models import build
from stackrev.models.stack_lstm import StackLSTMReverser
from stackrev.readout import read_out
from stackrev.structures.bounds import Bounds, Stage, contains, inflated, linear, scaled, worst_logits
from stackrev.tasks import vocabulary

SHAPES = [{}, {"layers": 2}, {"layers": 3, "stack_width": 3}, {"shared_controls": True}]
WANTED = torch.tensor([vocabulary.END, *range(vocabulary.FIRST_SYMBOL, vocabulary.SIZE)])


def model_of(seed: int = 0, factor: float = 2.0, **shape: object) -> StackLSTMReverser:
    config = shape_of("stack-lstm", **{"hidden_size": 6, "stack_width": 5, **shape})
    model = build(config, torch.Generator().manual_seed(seed)).double()
    assert isinstance(model, StackLSTMReverser)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)  # so that bounds are not all close to a point
    return model


def bounds_of(model: StackLSTMReverser, *, exact: bool = True) -> Bounds:
    controllers = model.controllers()
    assert controllers is not None
    return Bounds(controllers, exact=exact)


def closed(model: StackLSTMReverser) -> tuple[Bounds, Stage, Stage]:
    """Boxes that every step maps into themselves: there are always some, if need be all of [-1, 1]."""
    bounds = bounds_of(model)
    stages = []
    hull = bounds.start
    for step in (lambda box: bounds.encode(box), lambda box: bounds.decode(box, stages[0])):
        for _ in range(500):
            stage = step(hull)
            if contains(hull, stage.hull):
                break
            hull = inflated(hull, stage.hull, 1e-3)
        assert contains(hull, stage.hull)
        stages.append(stage._replace(hull=hull))
    return bounds, stages[0], stages[1]


def cell_step(model: StackLSTMReverser, name: str, symbol: Tensor, read: Tensor, h: Tensor, c: Tensor) -> list[Tensor]:
    """One step of the controller by its equations, for rows: h and c are [B, K, H]."""
    cell = getattr(model, name)
    below, states = read, []
    for layer, matrix in enumerate(cell.recurrent):
        z = torch.cat([below, h[:, layer]], 1) @ matrix + cell.bias[layer]
        if layer == 0:
            z = z + cell.symbols[symbol]
        i, f, g, o = z.chunk(4, 1)
        after = f.sigmoid() * c[:, layer] + i.sigmoid() * g.tanh()
        below = o.sigmoid() * after.tanh()
        states.append((below, after))
    controls = model.controls_of(cell)
    a = below @ controls.weight + controls.bias
    return [torch.stack([each for each, _ in states], 1), torch.stack([each for _, each in states], 1), a]


def within(box: Tensor, values: Tensor) -> bool:
    return bool((values >= box[0] - 1e-12).all() and (values <= box[1] + 1e-12).all())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
@torch.no_grad()
def test_every_state_of_every_string_is_within_the_boxes(shape: dict[str, object], seed: int) -> None:
    model = model_of(seed, **shape)
    _, encoded, decoded = closed(model)
    generator = torch.Generator().manual_seed(seed)
    rows, symbols = 200, range(vocabulary.FIRST_SYMBOL, vocabulary.SIZE)
    h, c = (each[:, 0].expand(rows, -1, -1) for each in (model.initial_hidden, model.initial_cell))
    read = h.new_zeros(rows, model.config.stack_width)
    pushed: list[tuple[Tensor, Tensor]] = []  # which symbol, and the value, as if every push were whole
    for t in range(12):
        last = torch.randint(symbols.start, symbols.stop, (rows,), generator=generator)
        ids = torch.zeros_like(last) if t == 0 else last
        h, c, a = cell_step(model, "encoder", ids, read, h, c)
        read = a[:, 2:].tanh()
        row = torch.zeros_like(ids) if t == 0 else ids - vocabulary.FIRST_SYMBOL + 1
        pushed.append((row, read))
        assert within(encoded.hull, h)
        assert within(encoded.cells, c)
        assert within(encoded.top[:, row], h[:, -1])
        assert within(encoded.gates[:, row], a[:, :2])
        assert within(encoded.values[:, row], read)
    apart = worst_logits(decoded.top, WANTED, *model.read_out_weights)
    for t in range(24):  # longer than the string: the theorem's decoder may see any value at any time
        row, read = pushed[int(torch.randint(len(pushed), (), generator=generator))]
        ids = torch.randint(symbols.start - 1, symbols.stop, (rows,), generator=generator)
        ids = torch.where(ids < symbols.start, vocabulary.SEPARATOR, ids)
        h, c, a = cell_step(model, "decoder", ids, read, h, c)
        assert within(decoded.hull, h), t
        assert within(decoded.cells, c)
        assert within(decoded.top[:, row], h[:, -1])
        assert within(decoded.gates[:, row], a[:, :2])
        logits = read_out(h[:, -1], model.read_out_weights)
        assert (logits - logits.gather(1, WANTED[row][:, None]) <= apart[row] + 1e-12).all()


@torch.no_grad()
def test_the_range_of_the_cell_state_is_the_least_that_a_step_keeps() -> None:
    model = model_of(factor=1.0)
    bounds = bounds_of(model)
    hull = scaled(bounds.start + torch.tensor([-0.3, 0.3], dtype=torch.float64)[:, None, None], 1.0)
    stage = bounds.encode(hull)
    # the same range by iteration: c <- hull of c and of f c + i g over all symbols, from the state after `$`
    read = (linear(hull[:, -1:], model.controls.weight, model.controls.weight.abs()) + model.controls.bias)[
        ..., 2:
    ].tanh()
    matrix = model.encoder.recurrent[0]
    z = linear(torch.cat([read, hull], -1), matrix, matrix.abs()) + model.encoder.contributions()[3:]
    i, f, g, _ = z.chunk(4, -1)
    i, f, g = i.sigmoid(), f.sigmoid(), g.tanh()
    started = cell_step(
        model, "encoder", torch.tensor([0]), torch.zeros(1, 5).double(), model.initial_hidden, model.initial_cell
    )[1][0]
    low, high = started.clone(), started.clone()
    new = torch.stack([a * b for a, b in itertools.product(i, g)])
    for _ in range(2000):
        kept = torch.stack([a * b for a, b in itertools.product(f, (low, high))])
        low = torch.minimum(low, (kept.amin(0) + new.amin(0)).amin(0))
        high = torch.maximum(high, (kept.amax(0) + new.amax(0)).amax(0))
    torch.testing.assert_close(stage.cells, torch.stack([low, high]), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_scale_of_nothing_is_a_single_state() -> None:
    model = model_of(layers=2)
    bounds = bounds_of(model, exact=False)
    wide = torch.stack([bounds.start[0] - 0.5, bounds.start[1] + 0.5])
    stage = bounds.encode(wide, 0.0)
    torch.testing.assert_close(stage.top[0], stage.top[1])
    assert not torch.equal(bounds.encode(wide, 0.1).top[0], stage.top[1])
    decoded = bounds.decode(wide, bounds.encode(bounds.start, 0.0), 0.0)
    torch.testing.assert_close(decoded.top[0], decoded.top[1])


@torch.no_grad()
def test_boxes_grow_with_the_scale() -> None:
    bounds = bounds_of(model_of(layers=2), exact=False)
    wide = torch.stack([bounds.start[0] - 0.5, bounds.start[1] + 0.5])
    encoded = [bounds.encode(wide, scale) for scale in (0.1, 0.5, 1.0)]
    decoded = [bounds.decode(wide, stage, scale) for stage, scale in zip(encoded, (0.1, 0.5, 1.0), strict=True)]
    for stages in (encoded, decoded):
        for small, large in itertools.pairwise(stages):
            assert contains(large.top, small.top)
            assert not contains(small.top, large.top)


def test_worst_logits_are_one_linear_form_and_derive() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    centre, radius = draw(37, 6), draw(37, 6).abs() * 0.1
    top = torch.stack([centre - radius, centre + radius]).requires_grad_()
    weights = [draw(6, 6), draw(6), draw(40, 6), draw(40)]
    weights = [each.requires_grad_() for each in weights]
    wanted = torch.arange(2, 39)
    found = worst_logits(top, wanted, *weights)
    output, output_bias, logits, bias = weights
    o = (linear(top, output.T, output.T.abs()) + output_bias).tanh()
    o_centre, o_radius = (o[0] + o[1]) / 2, (o[1] - o[0]) / 2
    apart = logits[None] - logits[wanted][:, None]
    plain = torch.einsum("yn,ykn->yk", o_centre, apart) + torch.einsum("yn,ykn->yk", o_radius, apart.abs())
    plain = plain + bias[None] - bias[wanted][:, None]
    torch.testing.assert_close(found, plain, rtol=1e-10, atol=1e-10)
    g = draw(*found.shape)
    ours = torch.autograd.grad(found, [top, *weights], g)
    theirs = torch.autograd.grad(plain, [top, *weights], g)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-10)


def test_bounds_derive_by_every_weight() -> None:
    model = model_of(layers=2)
    bounds = bounds_of(model, exact=False)
    encoded = bounds.encode(bounds.encode(bounds.start, 0.7).hull, 0.7)
    decoded = bounds.decode(encoded.hull, encoded, 0.7)
    loss = worst_logits(decoded.top, WANTED, *model.read_out_weights).logsumexp(1).mean()
    (loss + encoded.gates.sum() + decoded.gates.sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


@torch.no_grad()
def test_a_cell_that_forgets_nothing_has_no_range() -> None:
    model = model_of()
    model.encoder.bias[0][6:12] = 1000.0  # forget gates of exactly 1
    assert not torch.isfinite(bounds_of(model).encode(bounds_of(model).start).cells).all()
    assert torch.isfinite(bounds_of(model, exact=False).encode(bounds_of(model).start).cells).all()


def test_gates_without_a_stretch_have_no_bounds() -> None:
    assert model_of().controllers() is not None
    assert build(shape_of("stack-lstm", hidden_size=6, stack_width=5, gate_stretch=0.0)).controllers() is None
    assert build(shape_of("lstm", hidden_size=6, stack_width=5)).controllers() is None
