"""Run a command line: parse it, call one function, and turn whatever ends it into an exit code."""

from __future__ import annotations

import os
from collections.abc import Sequence

import typer

from stackrev.cli.arguments import explain, require_values, typed_words, with_version_everywhere
from stackrev.cli.commands import COMMANDS, application
from stackrev.cli.common import UsageError
from stackrev.cli.output import Output
from stackrev.errors import ConfigError, NotFoundError, StackrevError


def run(arguments: Sequence[str] | None) -> int:
    """Run a command line; see `stackrev.cli.main`."""
    words = typed_words() if arguments is None else list(arguments)
    try:
        completing = any(name.startswith("_STACKREV_COMPLETE") for name in os.environ)
        alone = not completing and words and words[0] in COMMANDS
        command = with_version_everywhere(typer.main.get_command(application(words[:1] if alone else COMMANDS)))
        if not completing:
            require_values(command, words)
        # Typer would expand variables, ~ and * on Windows, inside quotes too.
        code = command.main(
            words, prog_name="stackrev", standalone_mode=False, windows_expand_args=False, obj={"words": words}
        )
        Output(result=False).flush()
    except BrokenPipeError:
        Output(result=False).out.discard()
        return 1
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except (StackrevError, typer.TyperException, OSError, MemoryError, RuntimeError) as error:
        no_memory = "can't allocate memory" in str(error)  # as torch has it
        if os.environ.get("STACKREV_DEBUG") == "1" or (isinstance(error, RuntimeError) and not no_memory):
            raise
        return _report(error, words)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch" and "torch" not in str(error):
            raise
        hint = "pip install torch; only reverse, with a stack-LSTM and the compiled kernels, works without"
        return _report(StackrevError("PyTorch is not installed, and this needs it", hint=hint), words)
    except SystemExit as exit_:  # Typer's own answer to a broken pipe, and to a request for shell completion
        Output(result=False).out.discard() if exit_.code == 1 else None
        return exit_.code if isinstance(exit_.code, int) else 0
    return code if isinstance(code, int) else 0


def _report(error: BaseException, words: Sequence[str]) -> int:
    """Say what went wrong in a line, and what to do next in another; return the exit code."""
    code, hint = 1, None
    match error:
        case StackrevError():
            message, hint = error.message, error.hint
            if isinstance(error, ConfigError | UsageError | NotFoundError):
                code = 2
            if isinstance(error, ConfigError | UsageError):
                hint = hint or "--help shows what can be asked for"
        case typer.TyperException():
            code = error.exit_code
            message, hint = explain(error, words)
        case OSError():
            message = error.strerror or str(error)
            if error.filename is not None:
                message += f": {os.fsdecode(error.filename) if not isinstance(error.filename, int) else error.filename}"
        case _:
            message, hint = "out of memory", "try fewer or shorter strings, or a smaller model"
    output = Output(result=False)
    output.out.flush_or_discard()  # that stdout takes nothing may be what went wrong
    output.error(message)
    if hint:
        output.hint(hint)
    return code
