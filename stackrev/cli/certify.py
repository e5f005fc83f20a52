"""`stackrev certify`: a proof that a model reverses every string, or a string that it gets wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stackrev.cli import memory
from stackrev.cli.common import (
    CacheOption,
    JsonOption,
    OfflineOption,
    QuietOption,
    complete_model,
    examples,
    find_model,
)
from stackrev.cli.help_pages import App
from stackrev.cli.output import Output

if TYPE_CHECKING:
    from pathlib import Path

    from stackrev.evaluation.certificate.counterexample import Counterexample
    from stackrev.evaluation.certificate.proof import Proof
    from stackrev.models.certification import Certification

app = App()

_FAILURES = {
    "encoder_closed": "the encoder's box of states is not mapped into itself",
    "encoder_push": "the encoder's push gate may be below 1",
    "encoder_pop": "the encoder's pop gate may be above 0",
    "decoder_closed": "the decoder's box of states is not mapped into itself",
    "decoder_push": "the decoder's push gate may be above 0",
    "decoder_pop": "the decoder's pop gate may be below 1",
    "logits": "another logit may exceed the right one",
}
_SHOWN = 60
"""How many symbols of a counterexample a line shows."""


@app.command(
    epilog=examples(
        "stackrev certify stack-lstm",
        "stackrev certify lstm rnn --json",
        "stackrev certify runs/stack-lstm-seed0 --write",
    )
)
def certify(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="Packaged models, checkpoint folders, or [hf:]user/repo[@revision] on the Hub.",
            autocompletion=complete_model,
        ),
    ],
    write: Annotated[
        bool, typer.Option("--write", help="Store the certificate beside the weights that it is about.")
    ] = False,
    cache_dir: CacheOption = None,
    offline: OfflineOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Prove that models reverse every string of every length.

    The rounding of float32 is part of the proof. Where there is no proof, the command says which condition of it fails,
    and looks for a string that the model gets wrong. Exit code 0: all are proved, 1: one is not. docs/proof.md has the
    theorem.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # many small products: threads would wait for each other
    memory.keep()
    from stackrev.models.certification import store

    output = Output(json=json, quiet=quiet)
    certifications = []
    for name in names:
        folder = find_model(name, offline=offline, cache_dir=cache_dir)
        certification = _certified(folder, name, output)
        if write and certification.proved:
            store(certification)
        certifications.append((name, certification))
        if not json:
            _print(output, name, certification)
    output.result([_record(name, each) for name, each in certifications], lambda: None)
    if not all(each.proved for _, each in certifications):
        raise typer.Exit(1)


def _certified(folder: Path, name: str, output: Output) -> Certification:
    from stackrev.models.certification import certify as prove

    with ExitStack() as shown:

        def show(stage: str) -> None:
            shown.close()
            shown.enter_context(output.busy(f"{name}: {stage}"))

        return prove(folder, on_stage=show)


def _print(output: Output, name: str, certification: Certification) -> None:
    proof = certification.proof
    if certification.proved and proof is not None:
        output.line(f"{name}: proved. It reverses every string of up to 2^53 - 2 symbols exactly.")
        for line in _margins(proof):
            output.line(f"  {line}")
        output.line(f"  {_arithmetic(certification)}")
    else:
        output.line(f"{name}: not proved. {_reason(proof)}")
        output.line(f"  {_wrong(certification.counterexample)}")
    output.line(f"  weights: SHA-256 {certification.weights}")
    output.line(f"  time: {certification.seconds:.1f} s")


def _margins(proof: Proof) -> Sequence[str]:
    found = proof.conditions
    if found is None:
        return []
    return [
        f"gates past 0 and 1, at the least: encoder push {found.encoder_push:.2f}, pop {found.encoder_pop:.2f}; "
        f"decoder push {found.decoder_push:.2f}, pop {found.decoder_pop:.2f}",
        f"logits apart, at the least: {found.logits:.2f}",
    ]


def _arithmetic(certification: Certification) -> str:
    text = "arithmetic: float32 in any order"
    if certification.strongest is not None:
        text += f"; any with a unit roundoff of up to 2^-{_exponent(certification.strongest.rounding.unit)}"
    if certification.operands:
        text += f"; products of {' or '.join(certification.operands)} summed in float32"
    return text


def _exponent(unit: float) -> int:
    import math

    return round(-math.log2(unit))


def _reason(proof: Proof | None) -> str:
    """Which condition fails, where and by how much."""
    if proof is None:
        return (
            "The proof is about networks that push what they read onto a stack, and whose LSTMs' own gates are not "
            "stretched; this is another."
        )
    if proof.conditions is None:
        return f"No box of the {proof.missing}'s states was found that every step maps into itself."
    name = proof.conditions.failed[0]
    margin, place = proof.conditions.margins[name], proof.conditions.places[name]
    return f"In {_step(name, place)} {_FAILURES[name]}: {-margin:.3g} is missing."


def _step(name: str, place: tuple[int, ...]) -> str:
    from stackrev.tasks.vocabulary import decode

    symbols = [repr(decode([symbol])) for symbol in place]
    if name.startswith("encoder"):
        return f"an encoder step that reads {symbols[0]}"
    if len(symbols) < 2:
        return "the decoder's first step"
    return f"a decoder step that is fed {symbols[0]} and has to write {symbols[1]}"


def _wrong(found: Counterexample | None) -> str:
    if found is None:
        return "No string was found that it gets wrong."
    string, wanted, written = (_text(ids) for ids in (found.string, found.wanted, found.written))
    length = f" ({len(found.string):,} symbols)" if len(found.string) > _SHOWN else ""
    return f"It gets {string}{length} wrong: it writes {written}, and not {wanted}, from symbol {found.place:,} on."


def _text(ids: Sequence[int]) -> str:
    from stackrev.tasks.vocabulary import decode

    return repr(decode(ids[:_SHOWN])) + ("..." if len(ids) > _SHOWN else "")


def _record(name: str, certification: Certification) -> dict[str, Any]:
    proof, found = certification.proof, certification.counterexample
    strongest = certification.strongest
    conditions = None if proof is None else proof.conditions
    return {
        "model": name,
        "folder": str(certification.folder),
        "proved": certification.proved,
        "sha256": certification.weights,
        "margins": None if conditions is None else conditions.margins,
        "failed": None if conditions is None else conditions.failed,
        "reason": None if certification.proved else _reason(proof),
        "unit_roundoff": None if strongest is None else strongest.rounding.unit,
        "operands": list(certification.operands),
        "counterexample": None if found is None else _example(found),
        "seconds": certification.seconds,
    }


def _example(found: Counterexample) -> dict[str, Any]:
    from stackrev.tasks.vocabulary import decode

    return {
        "string": decode(found.string),
        "wanted": decode(found.wanted),
        "written": decode(found.written),
        "place": found.place,
        "tried": found.tried,
    }
