"""Whether a page's network does what the compiled kernels do: the same symbols, and the same gates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from browser import Browser

from stackrev.kinds import kind_of
from stackrev.storage import checkpoints
from stackrev.tasks import text as texts
from stackrev.tasks import vocabulary

SCRIPTS = (
    tuple(range(vocabulary.SYMBOLS)),  # ASCII, control characters too
    tuple(map(ord, "abc xyz")),
    tuple(map(ord, "aäeéiíoöuüß日本語漢字кириллицаאבגدهخ")),
    tuple(map(ord, "a 👩🏽é\u200d👧❤️🇩🇪")),
)


class Steps(NamedTuple):
    """What a network has done with one text: ids, what it has written, and the gates of every step."""

    ids: list[int]
    written: list[int]
    push: list[float]
    pop: list[float]


class Difference(NamedTuple):
    """How far a page's network is from the kernels'.

    Attributes:
        texts: How many texts there were.
        symbols: How many symbols they wrote.
        gates: How many gates they opened.
        wrong: In which texts the ids, or what was written, were different.
        furthest: The greatest difference between two gates.
        partial: How many gates were neither 0 nor 1: only these could differ at all.
    """

    texts: int
    symbols: int
    gates: int
    wrong: list[str]
    furthest: float
    partial: int


def draw(count: int, seed: int, longest: int = 64) -> list[str]:
    """Texts of several scripts, the empty one first."""
    random = Random(seed)
    drawn = [""]
    while len(drawn) < count:
        characters = random.choice(SCRIPTS)
        drawn.append("".join(chr(random.choice(characters)) for _ in range(random.randint(1, longest))))
    return drawn


def by_kernels(folder: Path, wanted: Sequence[str]) -> Iterator[Steps]:
    """What the compiled kernels do with texts."""
    config, weights = checkpoints.read_weights(folder)
    opened = kind_of(config.model.kind).open_stream
    assert opened is not None
    stream = opened(config.model, {name: each.data for name, each in weights.items()})
    for text in wanted:
        ids = list(texts.bind(text).ids)
        stream.reset()
        stream.encode([vocabulary.START, *ids])
        written = stream.decode_greedy(vocabulary.SEPARATOR, vocabulary.END, len(ids) + 1).tolist()
        stream.reset()
        looks = []
        for feed, symbols in (
            (stream.encode, [vocabulary.START, *ids]),
            (stream.feed_decoder, [vocabulary.SEPARATOR, *written[:-1]]),
        ):
            for symbol in symbols:
                feed([symbol])
                looks.append(stream.look())
        yield Steps(ids, written, [each.push for each in looks], [each.pop for each in looks])


def by_page(browser: Browser, wanted: Sequence[str]) -> Iterator[Steps]:
    """What the network of the page that is open does with texts."""
    for start in range(0, len(wanted), 50):
        listed = json.dumps(wanted[start : start + 50])
        answers = browser.ask(
            f"""{listed}.map(text => {{
                const run = new Run(packaged.network, bind(text, packaged.network.symbols).ids), all = numbers => Array.from(numbers.all.subarray(0, numbers.length));
                run.advance();
                return [run.ids, run.written, all(run.push), all(run.pop)];
            }})"""  # noqa: E501
        )
        yield from (Steps(*each) for each in answers)


def compare(browser: Browser, folder: Path, wanted: Sequence[str]) -> Difference:
    """Compare the page that is open, which is about a checkpoint, with the kernels."""
    wrong, furthest, symbols, gates, partial = [], 0.0, 0, 0, 0
    for text, ours, theirs in zip(wanted, by_kernels(folder, wanted), by_page(browser, wanted), strict=True):
        symbols += len(ours.written)
        if (ours.ids, ours.written) != (theirs.ids, theirs.written):
            wrong.append(text)
            continue
        for one, other in ((ours.push, theirs.push), (ours.pop, theirs.pop)):
            gates += len(one)
            partial += sum(0 < each < 1 for each in one)
            furthest = max(furthest, *(abs(a - b) for a, b in zip(one, other, strict=True)))
    return Difference(len(wanted), symbols, gates, wrong, furthest, partial)
