"""A tiny model and tasks for lm-eval, alone and on several ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from mllm_npu.inference.engine import Engine
from mllm_npu.models.tiny import NUM_QUERIES, TILE_SIZE, tiny_seed
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer

TEXTS = (
    "Draw a seven.",
    "Which digit is this? What is the sum of the digits?",
    "Read the digits. Which digit is this? Draw a seven and the sum of all the digits. " * 2,
)
QUESTIONS = (
    {"question": "Which digit?", "choices": ["seven", "the digits"], "answer": 0},
    {"question": "What is the sum?", "choices": ["Which", "a seven"], "answer": 1},
    {"question": "Read the digits.", "choices": ["seven", "sum"], "answer": 1},
)
QUESTIONS = tuple(
    {**each, "text": text, "colour": colour}
    for each, text, colour in zip(QUESTIONS, TEXTS, ("red", "blue", "white"), strict=True)
)

_TASKS = {
    "tiny_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    },
    "tiny_reply": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    },
    "tiny_text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [
            {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False}
        ],
    },
}
_PICTURES = """
from PIL import Image

def pictures(doc):
    return [Image.new("RGB", (16, 16), doc["colour"])]
"""


def make_engine() -> Engine:
    """The same tiny model on every rank."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer([*TEXTS, "USER: "] * 3, vocab_size=300)
    add_special_tokens(tokenizer, SpecialTokens(num_slots=8, num_locations=0))
    processor = Processor(
        tokenizer=tokenizer,
        any_resolution=AnyResolution(
            grids=["1x1", "2x1"], tile_size=TILE_SIZE, repeat_single_tile=False
        ),
        chat_template=ChatTemplate(user_prefix="USER: ", user_suffix="\n"),
        num_read_tokens=NUM_QUERIES,
        num_drawn_tokens=NUM_QUERIES,
        max_tokens=160,
    )
    model = tiny_seed().eval()
    model.language_model.resize_vocabulary(len(tokenizer))
    with torch.no_grad():
        table = model.language_model.causal_lm.get_input_embeddings().weight
        table.copy_(torch.randn_like(table) * 0.3)
    return Engine(model=model, processor=processor, device="cpu")


def write_tasks(folder: Path) -> Path:
    """Tasks of lm-eval over data beside them."""
    lines = "".join(json.dumps(question) + "\n" for question in QUESTIONS)
    (folder / "questions.jsonl").write_text(lines)
    (folder / "shown.py").write_text(_PICTURES)
    source = {
        "dataset_path": "json",
        "dataset_kwargs": {
            "data_files": {"test": str(folder / "questions.jsonl")},
            "cache_dir": str(folder / "cache"),
        },
        "test_split": "test",
    }
    for name, task in _TASKS.items():
        # JSON is YAML.
        (folder / f"{name}.yaml").write_text(json.dumps({"task": name, **source, **task}))
    for name, shown in (("tiny_choice", "tiny_picture_choice"), ("tiny_reply", "tiny_picture")):
        task = {**_TASKS[name], "doc_to_text": "<image>{{question}}"}
        text = json.dumps({"task": shown, **source, **task}, indent=1).removesuffix("\n}")
        (folder / f"{shown}.yaml").write_text(
            f'{text},\n "doc_to_image": !function shown.pictures\n}}\n'
        )
    return folder


def evaluate_share(folder: Path, tasks: Path) -> dict[str, Any] | None:
    """What lm-eval finds on this rank; only the first has all results."""
    from lm_eval import evaluator
    from lm_eval.tasks import TaskManager

    from mllm_npu.distributed.mesh import Mesh
    from mllm_npu.evaluate.lm_eval_model import LmEvalModel

    mesh = Mesh.start(torch.device("cpu"), timeout_seconds=60)
    # It asks half a dozen programs, which takes longer than all else.
    evaluator.add_env_info = lambda results: None
    report = evaluator.simple_evaluate(
        LmEvalModel(engine=make_engine(), mesh=mesh),
        tasks=list(_TASKS),
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
    )
    if report is None:
        return None
    return {
        name: {key: value for key, value in values.items() if isinstance(value, float)}
        for name, values in report["results"].items()
    }
