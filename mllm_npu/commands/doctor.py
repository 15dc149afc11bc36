"""Command that examines the machine: alone, on ranks it starts, or as one rank of torchrun's."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from itertools import zip_longest
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand

from mllm_npu.commands.console import Json, bar, console, later
from mllm_npu.commands.ranks import is_main_rank
from mllm_npu.errors import ConfigError

app = typer.Typer()

EXIT_BAD = 1
BURN_SECONDS = 60
_START_SECONDS = 120.0
"""Time ranks have to import torch and find their devices."""


class DoctorCommand(TyperCommand):
    """Lets ``--burn-in`` stand without its number."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the number in where it is missing, then parse as always."""
        return super().parse_args(ctx, fill_seconds(args))


def fill_seconds(args: Sequence[str]) -> list[str]:
    """Arguments in which every ``--burn-in`` is followed by a number of seconds."""
    filled: list[str] = []
    for argument, following in zip_longest(args, args[1:], fillvalue=""):
        filled.append(argument)
        if argument == "--burn-in" and not following.lstrip("-+").isdigit():
            filled.append(str(BURN_SECONDS))
    return filled


@app.command(
    cls=DoctorCommand,
    epilog="Examples: `mllm-npu doctor` · `mllm-npu doctor --ranks 8 --burn-in` · "
    "`mllm-npu doctor --burn-in 600 --json` · on several hosts: "
    "`torchrun --nnodes=2 ... -m mllm_npu.cli doctor --burn-in`",
)
def doctor(
    every_row: Annotated[
        bool, typer.Option("--all", help="Show rows too that do not concern this machine.")
    ] = False,
    ranks: Annotated[
        int | None,
        typer.Option(min=2, help="Start so many processes here and try the links between them."),
    ] = None,
    burn_in: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="[SECONDS]",
            help=f"Train a small transformer for so long, {BURN_SECONDS} s without a number.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds a rank may stay silent before it is named.")
    ] = 60.0,
    skip_machine: Annotated[bool, typer.Option("--skip-machine", hidden=True)] = False,
    as_json: Json = False,
) -> None:
    """Check the installation, the devices and the machine; exit code 1 where something is bad.

    With ranks: also that every exchange between them gives right values, and how fast. With a
    burn-in: also that each device is fast, steady and computes the same every time.
    """
    # A broken extension must become a row here, not the end of `import torch`.
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    report = _Report(every_row=every_row, as_json=as_json)
    look: Callable[[], Sequence[Any]] = (lambda: ()) if skip_machine else look_at_machine
    world_size = os.environ.get("WORLD_SIZE", "")
    is_rank = "RANK" in os.environ and world_size.isdigit() and int(world_size) > 1
    if is_rank and ranks is not None:
        raise ConfigError(
            f"--ranks {ranks} was asked for inside a rank that a launcher has started. "
            "Leave it out: the launcher's ranks are tried."
        )
    # Extensions of torch print while they are imported; standard output is for the report.
    with redirect_stdout(sys.stderr):
        if is_rank:
            _examine_as_rank(look, report, timeout=timeout, burn_in=burn_in)
        checks = list(look())
        if ranks is not None:
            checks += _start_ranks(ranks, timeout=timeout, burn_in=burn_in)
        elif burn_in is not None:
            checks += _burn(burn_in)
    raise typer.Exit(report.write(checks))


def look_at_machine() -> Sequence[Any]:
    """Rows about this machine, also where torch cannot be imported."""
    check = later("device.doctor.check")
    try:
        return later("device.doctor.examination").run_checks()
    except check.FAULTS as error:
        rows = later("device.doctor.installation").examine_installation()
        told = check.fault("import torch", error, state="bad")
        return (*rows, told)


class _Report:
    """Writes rows for people or for machines."""

    def __init__(self, *, every_row: bool, as_json: bool) -> None:
        self.every_row = every_row
        self.as_json = as_json
        self.out = sys.stdout

    def write(self, checks: Sequence[Any]) -> int:
        """Write the rows to standard output; gives the exit code."""
        check = later("device.doctor.check")
        if self.as_json:
            typer.echo(json.dumps(check.as_report(checks)), file=self.out)
        else:
            rendered = later("device.doctor.report").render(checks, with_asides=self.every_row)
            Console(file=self.out, highlight=False).print(rendered)
        return EXIT_BAD if check.worst(checks) == "bad" else 0

    def end(self, checks: Sequence[Any]) -> None:
        """End this rank at once; rank 0 writes the rows, the others what is bad, in one line."""
        code = EXIT_BAD if later("device.doctor.check").worst(checks) == "bad" else 0
        if is_main_rank():
            console.show_cursor()
            self.write(checks)
        elif code:
            told = "; ".join(f"{row.name}: {row.found}" for row in checks if row.state == "bad")
            sys.stderr.write(f"[rank {os.environ['RANK']}] {told}\n")
        self.out.flush()
        sys.stderr.flush()
        # Threads that wait for a rank that is gone would keep the process.
        os._exit(code)


def _examine_as_rank(
    look: Callable[[], Sequence[Any]], report: _Report, *, timeout: float, burn_in: int | None
) -> None:
    """Be one of several ranks; does not come back."""
    options: dict[str, Any] = {}
    # One bar, of what takes longest, and only from the rank that speaks.
    progress, move = _bar("links" if burn_in is None else "burn-in, seconds")
    if is_main_rank():
        options["link_progress" if burn_in is None else "burn_progress"] = move
    examination = later("distributed.joint_examination").JointExamination(
        device=later("device.platform").pick_device("auto"),
        look=look,
        timeout_seconds=timeout,
        burn_in_seconds=burn_in,
        give_up=report.end,
        **options,
    )
    with progress if is_main_rank() else nullcontext():
        checks = examination.run()
    report.end(checks)


def _start_ranks(ranks: int, *, timeout: float, burn_in: int | None) -> Sequence[Any]:
    """Rows of ranks started here; a rank that fails is named by its exit code."""
    check = later("device.doctor.check")
    platform = later("device.platform")
    device = platform.pick_device("auto")
    here = platform.num_devices(device)
    if device.type != "cpu" and ranks > here:
        return (
            check.Check(
                name="ranks",
                state="bad",
                found=f"{ranks} were asked for, this machine has {here} device(s)",
                advice=f"give --ranks {here}" if here > 1 else "leave --ranks out",
            ),
        )
    command = [sys.executable, "-m", "mllm_npu.cli", "doctor", "--skip-machine", "--json"]
    command += ["--timeout", str(timeout)]
    command += [] if burn_in is None else ["--burn-in", str(burn_in)]
    console.print(f"starting {ranks} ranks on {device.type}")
    seconds = _START_SECONDS + 3 * timeout + (burn_in or 0)

    def run() -> Sequence[Any]:
        outcome = later("distributed.local_ranks").run_local_ranks(command, ranks, seconds=seconds)
        if not outcome.complaints:
            # Behind whatever a library has printed past Python.
            return check.read_checks(json.loads(outcome.output.strip().splitlines()[-1]))
        return (
            check.Check(
                name="ranks",
                state="bad",
                found="; ".join(outcome.complaints),
                advice="look at what the rank that is named printed, or try it alone",
            ),
        )

    return check.examine("ranks", run, state="bad")


def _burn(seconds: int) -> Sequence[Any]:
    """The row of a burn-in of this process's device."""
    module = later("device.doctor.burn_in")
    device = later("device.platform").pick_device("auto")
    later("device.process").tune_process()
    console.print(f"burn-in: {seconds} s on {device.type}")
    progress, move = _bar("burn-in, seconds")

    def run() -> Any:
        with progress:
            return module.judge(module.burn_in(device, seconds, progress=move))

    return later("device.doctor.check").examine("burn-in", run, state="bad")


def _bar(label: str) -> tuple[Any, Callable[[float, float], object]]:
    """A progress bar of whole numbers, and what moves it."""
    progress, move = bar(label)
    return progress, lambda done, total: move(round(done), round(total))
