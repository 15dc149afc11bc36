"""The entry point ``mllm-npu``: puts the commands together and turns refusals into one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mllm_npu import __version__
from mllm_npu.commands import (
    answering,
    comparing,
    data,
    doctor,
    evaluating,
    harness,
    parity,
    planning,
    serving,
    setup,
    tokenizer,
    training,
    zoo,
    zoo_cards,
)
from mllm_npu.commands.console import EXIT_STOPPED
from mllm_npu.errors import MllmNpuError

_UsageError: Any = typer.BadParameter.__base__
"""What a wrong option or argument raises; typer exports only this child of it."""

EXIT_REFUSED = 2


class _Root(TyperGroup):
    """Knows commands of two words beside the command of the first one, as ``doctor parity``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that arguments begin with."""
        two_words = " ".join(args[:2])
        if two_words in self.commands:
            return two_words, self.commands[two_words], args[2:]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="mllm-npu",
    cls=_Root,
    help="Compose, train, evaluate and talk to modular multimodal language models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
_EVALUATING = (evaluating, comparing, harness)
for group in (training, planning, *_EVALUATING, answering, serving, setup, doctor, parity):
    app.add_typer(group.app)
app.add_typer(data.app, name="data")
app.add_typer(tokenizer.app, name="tokenizer")
zoo.app.add_typer(zoo_cards.app)
app.add_typer(zoo.app, name="zoo")


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Compose, train, evaluate and talk to modular multimodal language models."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a refusal is one line on stderr and exit code 2.

    Args:
        arguments: as typed after ``mllm-npu``; None takes those of the process.

    Returns:
        The exit code.
    """
    typed = list(sys.argv[1:] if arguments is None else arguments)
    # What teaches torch a device is imported where devices are looked for, so that a broken one is
    # told in one line instead of torch's traceback.
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    try:
        code = app(args=typed or ["--help"], prog_name="mllm-npu", standalone_mode=False)
    except MllmNpuError as error:
        return _refuse(type(error).__name__, str(error), getattr(error, "__notes__", ()))
    except _UsageError as error:
        said = error.format_message().strip().rstrip(".")
        if not said:  # a command group by itself has shown its help
            return EXIT_REFUSED
        path = error.ctx.command_path if error.ctx else "mllm-npu"
        return _refuse("UsageError", f"{said}. See: {path} --help")
    except typer.Abort:
        return EXIT_STOPPED
    return code if isinstance(code, int) else 0


def _refuse(kind: str, message: str, notes: Sequence[str] = ()) -> int:
    """One line, and below it notes as they are: a tree of files is no line."""
    sys.stderr.write("\n".join([f"{kind}: {' '.join(message.split())}", *notes]) + "\n")
    return EXIT_REFUSED


if __name__ == "__main__":
    sys.exit(main())
