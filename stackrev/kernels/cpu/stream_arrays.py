"""A model's arrays as the stream's kernel takes them; `Stream` says which they are."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stackrev.kernels.cpu.calls import CellArrays, StreamCall

if TYPE_CHECKING:
    from typing_extensions import Buffer

ENDS = {"stack": 1, "queue": 1, "deque": 2}
"""At how many ends each structure is worked. The kernel has the place in this table for the structure."""
KEPT = 1 << 20
"""About how many of a stack's values stay in memory, the newest; others are forgotten if they can be found again."""


def stream_call(
    weights: Mapping[str, Buffer],
    structure: str,
    hidden: int,
    width: int,
    layers: int,
    stretch: float,
    cell_stretch: float,
) -> tuple[StreamCall, _Arrays]:
    """The call's structure, and what must stay alive until it returns."""
    arrays = _Arrays(weights)
    symbols, outputs = arrays.count("logits.bias"), arrays.count("output.bias")
    place = tuple(ENDS).index(structure)
    call = StreamCall(place, hidden, width, layers, symbols, outputs, KEPT, stretch, cell_stretch)
    read, controlled = ENDS[structure] * width, ENDS[structure] * (2 + width)
    own = "decoder_controls.weight" in weights
    for phase, controls in (("encoder", "controls"), ("decoder", "decoder_controls" if own else "controls")):
        recurrent = [(read if k == 0 else hidden) + hidden for k in range(layers)]
        matrices = [arrays.take(f"{phase}.recurrent.{k}", rows * 4 * hidden) for k, rows in enumerate(recurrent)]
        biases = [arrays.take(f"{phase}.bias.{k}", 4 * hidden) for k in range(layers)]
        cell = CellArrays(
            arrays.take(f"{phase}.symbols", symbols * 4 * hidden),
            *(arrays.list(matrices), arrays.list(biases)),
            *(arrays.take(f"{controls}.weight", hidden * controlled), arrays.take(f"{controls}.bias", controlled)),
        )
        setattr(call, phase, cell)
    call.hidden0 = arrays.take("initial_hidden", layers * hidden)
    call.cell0 = arrays.take("initial_cell", layers * hidden)
    call.output = arrays.take("output.weight", outputs * hidden)
    call.output_bias = arrays.take("output.bias", outputs)
    call.logits = arrays.take("logits.weight", symbols * outputs)
    call.logits_bias = arrays.take("logits.bias", symbols)
    return call, arrays


class _Arrays:
    """Checks the sizes of buffers, gives their addresses, and keeps them alive."""

    def __init__(self, weights: Mapping[str, Buffer]) -> None:
        self._views = {name: memoryview(buffer).cast("B") for name, buffer in weights.items()}
        self._kept: list[object] = []

    def count(self, name: str) -> int:
        """How many numbers an array has."""
        if name not in self._views:
            raise ValueError(f"the weights lack {name}")
        return self._views[name].nbytes // 4

    def take(self, name: str, count: int) -> int:
        if self.count(name) != count or self._views[name].nbytes != 4 * count:
            raise ValueError(f"{name} has {self._views[name].nbytes} bytes, not {count} float32 numbers")
        view = self._views[name]
        if view.readonly:
            # ctypes takes the address of writable memory only
            view = memoryview(bytearray(view))
        numbers = (ctypes.c_char * view.nbytes).from_buffer(view)
        self._kept.append(numbers)
        return ctypes.addressof(numbers)

    def list(self, addresses: Sequence[int]) -> int:
        pointers = (ctypes.c_void_p * len(addresses))(*addresses)
        self._kept.append(pointers)
        return ctypes.addressof(pointers)
