"""The command that lets lm-eval ask a run: evaluate lm-eval."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Annotated

import typer

from mllm_npu.commands.console import later
from mllm_npu.commands.ranks import leaving_together
from mllm_npu.errors import ConfigError

app = typer.Typer()

_EXAMPLES = """
Examples:

- a benchmark of lm-eval: `mllm-npu evaluate lm-eval --model mllm_npu
  --model_args run=runs/digits --tasks arc_easy --limit 100`
- in the form of a chat, keeping what was asked: the same with `--apply_chat_template
  --output_path runs/digits/lm_eval --log_samples`
- tasks of your own: `--include_path my/tasks --tasks my_task`
- what there is: `mllm-npu evaluate lm-eval ls tasks`; every option of lm-eval:
  `mllm-npu evaluate lm-eval run -h`
- on eight devices: `torchrun --nproc-per-node=8 -m mllm_npu.cli evaluate lm-eval ...`

`--model_args` takes run, device (auto), batch_size (64), max_length (what the model takes) and
seed (0), as in `run=runs/digits,device=cpu,batch_size=16`.
"""


@app.command(
    "evaluate lm-eval",
    epilog=_EXAMPLES,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def lm_eval(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="As lm-eval's own command takes them.", show_default=False),
    ] = None,
) -> None:
    """Run lm-eval (EleutherAI's harness), which knows the model mllm_npu here."""
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(
            "lm-eval was asked for; it is not installed. pip install 'lm-eval>=0.4.13'"
        )
    later("evaluate.lm_eval_model")
    # lm-eval's command reads nothing else.
    sys.argv = ["lm-eval", *(arguments or [])]
    with leaving_together():
        importlib.import_module("lm_eval.__main__").cli_evaluate()
