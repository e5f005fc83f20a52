"""The kernels' own sigmoid and tanh on arrays, for those who measure their errors. Needs neither torch nor NumPy.

Every number goes through the code that the cell runs: whole vectors, the last one padded. Each set of instructions has
its own, whose last bits may differ.
"""

from __future__ import annotations

import ctypes
from array import array
from typing import TYPE_CHECKING, Literal

from stackrev.errors import NativeError
from stackrev.kernels.cpu import library

if TYPE_CHECKING:
    from typing_extensions import Buffer


def activation(
    function: Literal["sigmoid", "tanh"], numbers: Buffer, *, instructions: str = "", flush: bool = False
) -> array[float]:
    """The function of each number.

    Args:
        function: Which of the two.
        numbers: float32, as anything contiguous with the buffer protocol.
        instructions: One of `library.SETS`; the set that the kernels use if empty.
        flush: Whether numbers too small to be normal count as zero, as they do in a recurrence over a batch; in a
            stream they do not.

    Returns:
        As many float32 numbers, which NumPy and torch take without a copy (`np.frombuffer`, `torch.frombuffer`).

    Raises:
        NativeError: These kernels are not there, or the processor lacks the instructions.
        ValueError: There is no such function, or the numbers are not float32.
    """
    if function not in ("sigmoid", "tanh"):
        raise ValueError(f"no such function: {function!r}; there are 'sigmoid' and 'tanh'")
    found = library.find(instructions) if instructions else library.NATIVE
    if found.library is None or instructions not in ("", found.instructions):
        raise NativeError(found.missing)
    view = memoryview(numbers)
    if view.format not in ("f", "<f", "B", "c") or view.nbytes % 4:
        raise ValueError(f"the numbers are of the format {view.format!r}, not float32")
    given = array("f", view.tobytes())
    results = array("f", bytes(view.nbytes))
    addresses = (ctypes.c_void_p(each.buffer_info()[0]) for each in (given, results))
    if found.library.stackrev_activation(function == "tanh", flush, *addresses, ctypes.c_int64(len(given))):
        raise NativeError("the compiled kernels ran out of memory")
    return results
