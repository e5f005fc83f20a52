"""A trace of a stack, a queue or a deque as a picture in a terminal, as plain columns and as JSON."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stackrev.structures.columns import FAINT, History
from stackrev.tasks.visible import mark as _mark

if TYPE_CHECKING:
    from stackrev.evaluation.traces import Trace

MOST_ELEMENTS = 16
"""The most elements that a line of plain columns shows."""
NARROW = 72
"""Fewer columns than this get bars of one character."""

_GATE = 13  # columns of a gate's bar and number, and the gap before them
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = " ▁▂▃▄▅▆▇█"
_SHADES = "░▒▓█"
_BLUES = (17, 18, 19, 26, 33)
_PUSH, _POP, _READ, _DIM, _RESET = "\x1b[32m", "\x1b[35m", "\x1b[1m", "\x1b[2m", "\x1b[0m"


def steps(trace: Trace) -> Iterator[dict[str, Any]]:
    """Each step as a JSON object; `stack` is from the top down."""
    columns = trace.columns()
    for number in range(len(columns)):
        yield _step(trace, columns, number)


def _step(trace: Trace, columns: History, number: int, most: int | None = None) -> dict[str, Any]:
    """A step, with at most so many elements of its stack."""
    writing = number - trace.encoder_steps
    held = (each for each in columns.elements(number) if each.strength >= FAINT)
    return {
        "step": number + 1,
        "phase": "read" if writing < 0 else "write",
        "fed": trace.fed[number],
        "written": None if writing < 0 else trace.written[writing],
        **{name: round(strengths[number], 6) for name, strengths in trace.gates.items()},
        "height": round(columns.heights[number], 6),
        "read": trace.reads[number],
        trace.structure: [
            {
                "symbol": trace.symbol(each),
                "step": each.step + 1,
                "bottom": round(each.bottom, 6),
                "strength": round(each.strength, 6),
                "read": round(each.read, 6),
                **({"end": _ENDS[each.end], "bottom_read": round(each.bottom_read, 6)} if trace.ends > 1 else {}),
            }
            for each in itertools.islice(held, most)
        ],
    }


def plain(trace: Trace) -> Iterator[str]:
    """Aligned columns, without a terminal."""
    # The widths are those of the widest cells, so there are two passes; neither keeps what the steps hold.
    widths: list[int] = []
    for row in _rows(trace):
        widths = widths or [0] * len(row)
        widths = [max(width, _cells(cell)) for width, cell in zip(widths, row, strict=True)]
    for row in _rows(trace):
        yield "  ".join(_pad(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip()


_ENDS = ("top", "bottom")


def _rows(trace: Trace) -> Iterator[tuple[str, ...]]:
    """The cells of the plain columns, the header first."""
    gates = [name.replace("_", " ") for name in trace.gates]
    yield ("step", "phase", "symbol", *gates, "height", "read", _contents(trace))
    columns = trace.columns()
    for number in range(len(columns)):
        step = _step(trace, columns, number, MOST_ELEMENTS)
        more = columns.count(number) - MOST_ELEMENTS
        held = [f"{_mark(each['symbol'])}:{each['strength']:.2f}" for each in step[trace.structure]] + [f"+{more}"] * (
            more > 0
        )
        numbers = [f"{step[key]:.2f}" for key in (*trace.gates, "height")]
        yield (str(step["step"]), step["phase"], _mark(_symbol(step)), *numbers, _mark(step["read"]), " ".join(held))


def _contents(trace: Trace) -> str:
    """What heads the column of elements."""
    return f"{trace.structure}, {'front' if trace.structure == 'queue' else 'top'} first"


def picture(trace: Trace, *, width: int, colour: bool) -> Iterator[str]:
    """Bars and shades for a terminal.

    Args:
        trace: The steps.
        width: How many columns there are.
        colour: Whether colours may be used; strengths are shaded either way.
    """
    gates = [(name, _POP if name.endswith("pop") else _PUSH) for name in trace.gates]
    wide = width >= NARROW + _GATE * (len(gates) - 2)
    columns = trace.columns()
    symbols = max(_cells(_mark(each)) for each in (*trace.fed, *trace.written, *trace.reads))
    numbers = len(str(len(columns)))

    def paint(text: str, style: str) -> str:
        return f"{style}{text}{_RESET}" if colour else text

    if wide:
        names = [_pad(name.replace("_", " "), _GATE - 2) for name, _ in gates]
        heads = [" " * numbers, _pad("symbol", 7 + symbols), *names]
        left = "  ".join([*heads, _pad("read", max(4, symbols)), _contents(trace)])
    else:
        signs = ["-" if name.endswith("pop") else "+" for name, _ in gates]
        left = " ".join([_pad("", 1 + symbols), *signs, _pad("r", symbols), trace.structure])
    yield paint(left[:width], _DIM)
    for number in range(len(columns)):
        step = _step(trace, columns, number, width)  # an element takes more than one column
        writing = step["phase"] == "write"
        symbol, read = _pad(_mark(_symbol(step)), symbols), _mark(step["read"])
        if wide:
            bars = [f"{paint(_bar(step[key], 6), style)} {step[key]:.2f}" for key, style in gates]
            word = "writes " if writing else "reads  "
            parts = [paint(f"{step['step']:>{numbers}}", _DIM), paint(word, _DIM) + symbol, *bars]
            start = "  ".join([*parts, _pad(read, max(4, symbols)), ""])
            used = numbers + 2 + 7 + symbols + len(gates) * _GATE + 2 + max(4, symbols) + 2
        else:
            levels = [paint(_level(step[key]), style) for key, style in gates]
            start = " ".join([(">" if writing else "<") + symbol, *levels, _pad(read, symbols), ""])
            used = 1 + symbols + 1 + 2 * len(gates) + symbols + 1
        yield (start + _stack(step[trace.structure], columns.count(number), max(6, width - used), colour)).rstrip()


def _symbol(step: dict[str, Any]) -> str:
    """What a step reads, or writes."""
    symbol: str = step["fed"] if step["written"] is None else step["written"]
    return symbol


def _stack(elements: list[dict[str, Any]], count: int, room: int, colour: bool) -> str:
    """As many of `count` elements as there is room for; what is read is bold, what is not shown is counted."""
    parts: list[str] = []
    for place, each in enumerate(elements):
        mark, strength = _mark(each["symbol"]), each["strength"]
        left = count - place
        needed = _cells(mark) + 2
        if room - needed < (len(f"+{left - 1}") if left > 1 else 0):
            parts.append(f"+{left}")
            break
        room -= needed
        if colour:
            blue = _BLUES[min(len(_BLUES) - 1, int(strength * len(_BLUES)))]
            bold = "1;" if each["read"] > 0 or each.get("bottom_read", 0) > 0 else ""
            parts.append(f"\x1b[{bold}38;5;15;48;5;{blue}m {mark} {_RESET}")
        else:
            parts.append(f"{mark}{_SHADES[min(3, int(strength * 4))]} ")
    return "".join(parts)


def _bar(strength: float, cells: int) -> str:
    eighths = round(strength * cells * 8)
    whole, part = divmod(eighths, 8)
    return (_EIGHTHS[8] * whole + (_EIGHTHS[part] if part else "")).ljust(cells, "·")


def _level(strength: float) -> str:
    return _LEVELS[round(strength * 8)].replace(" ", "·")


def _cells(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _cells(text))
