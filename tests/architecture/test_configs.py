"""Every YAML that is shipped composes, and every model it describes builds without memory."""

import json
import re
import subprocess
import sys
from itertools import takewhile

import pytest
import torch

from mllm_npu.arguments import TARGET, argument_names
from mllm_npu.build import build_model, build_part
from mllm_npu.config import CONFIG_FOLDER, load_config, plain
from mllm_npu.errors import ConfigError
from mllm_npu.models.lora import is_adapter
from mllm_npu.roots import ROOTS

FILES = sorted(str(path.relative_to(CONFIG_FOLDER)) for path in CONFIG_FOLDER.rglob("*.yaml"))
ADDED = {"lora"}
"""Groups that are absent unless they are asked for."""
LANGUAGE = {"model_type": "llama", "hidden_size": 96, "vocab_size": 32000}
VISION = {
    "model_type": "siglip_vision_model",
    "hidden_size": 96,
    "image_size": 16,
    "patch_size": 4,
}
CLIP = {**VISION, "model_type": "clip_vision_model", "num_hidden_layers": 2}
SMALL = {
    "models/language_model/folder.yaml": {"language_model": LANGUAGE},
    "models/vision_encoder/folder.yaml": {"vision_encoder": VISION},
    "experiment/seedx/pretrain.yaml": {"language_model": LANGUAGE},
    "experiment/mllm_llama3_8b_siglip_vit/pretrain.yaml": {
        "language_model": LANGUAGE,
        "vision_encoder": VISION,
    },
    "experiment/llava/align.yaml": {"language_model": LANGUAGE, "vision_encoder": CLIP},
    "experiment/vision/qwen_vit_g.yaml": {"language_model": LANGUAGE},
}
"""Files that name folders of a person's own, and what stands for those."""
SEEDX = ["models=seedx_llama2_13b_qwenvl_vit", "processor=seedx"]
READER = ["models=mllm_tiny"]
DETOKENIZER = ["models=detokenizer_tiny", "processor=detokenizer"]
TOGETHER = {
    "models/detokenizer_sdxl.yaml": ["processor=detokenizer"],
    "models/detokenizer_tiny.yaml": ["processor=detokenizer"],
    "models/mllm_llama3_8b_siglip_vit.yaml": ["processor=seedx"],
    "models/seedx_llama2_13b_qwenvl_vit.yaml": ["processor=seedx"],
    "processor/detokenizer.yaml": ["models=detokenizer_tiny"],
    "processor/seedx.yaml": ["models=seedx_llama2_13b_qwenvl_vit"],
    "processor/seedx_chat.yaml": ["models=seedx_llama2_13b_qwenvl_vit"],
    "models/llava_vicuna_7b_clip_vit.yaml": ["processor=seedx"],
    "models/llava_1_5_7b.yaml": ["processor=llava_1_5"],
    "models/llava_1_5_13b.yaml": ["processor=llava_1_5"],
    "models/llava_next_llama3_8b.yaml": ["processor=llava_next_llama3"],
    "models/llava_next_mistral_7b.yaml": ["processor=llava_next_mistral"],
    "models/llava_next_qwen_72b.yaml": ["processor=llava_next_qwen"],
    "models/llava_onevision_qwen2_0_5b.yaml": ["processor=llava_onevision"],
    "models/llava_onevision_qwen2_7b.yaml": ["processor=llava_onevision"],
    "processor/llava_1_5.yaml": ["models=llava_1_5_7b"],
    "processor/llava_next.yaml": ["models=llava_next_mistral_7b"],
    "processor/llava_next_llama3.yaml": ["models=llava_next_llama3_8b"],
    "processor/llava_next_mistral.yaml": ["models=llava_next_mistral_7b"],
    "processor/llava_next_qwen.yaml": ["models=llava_next_qwen_72b"],
    "processor/llava_onevision.yaml": ["models=llava_onevision_qwen2_0_5b"],
    "lora/qwen_vit.yaml": ["models/vision_encoder=qwen_vit_tiny"],
    "lora/unet.yaml": SEEDX,
    "objective/comprehension.yaml": READER,
    "objective/projector.yaml": READER,
    "objective/lora.yaml": [*READER, "+lora=language_and_vision", "objective.feature_cache=null"],
    "objective/detokenizer.yaml": DETOKENIZER,
    "objective/detokenizer_full.yaml": DETOKENIZER,
    "objective/detokenizer_lora.yaml": [*DETOKENIZER, "+lora=unet"],
    "objective/seedx.yaml": [*SEEDX, "+lora=seedx"],
}
"""What else must be chosen beside a file."""
PARTS = {
    "generation/discrete_identity.yaml": "models.drawn_features",
    "generation/sd_xl_qwenvl_vit_resampler.yaml": "models.image_decoder",
}
"""Names of the original for what are parts of a model here."""


def selection(file: str) -> tuple[str, list[str]]:
    """Root and overrides that select a file: models/projector/mlp.yaml -> models/projector=mlp."""
    group, _, option = file.removesuffix(".yaml").rpartition("/")
    if not group:
        return option, []
    if group == "workers":
        return "model", [f"workers={option}"]
    if group == "task":
        return "evaluation", [f"task=[{option}]"]
    if group == "cluster":
        return "planning", [f"cluster={option}"]
    if file in PARTS:
        return "training", [*SEEDX, f"+{group}@{PARTS[file]}={option}"]
    if group.startswith("experiment"):
        path = f"{group}/{option}".removeprefix("experiment/")
        return "training", [f"experiment={path}"]
    beside = TOGETHER.get(file, [])
    return "training", [*beside, f"{'+' if group in ADDED else ''}{group}={option}"]


def test_there_are_options_of_every_kind():
    groups = {file.rpartition("/")[0] for file in FILES}
    assert {
        "",
        "models",
        "models/vision_encoder",
        "models/projector",
        "models/language_model",
        "models/image_decoder",
        "dataset",
        "objective",
        "train",
        "experiment",
    } <= groups
    assert {f"{root}.yaml" for root in ROOTS} <= set(FILES)


@pytest.fixture
def compose(tmp_path):
    """Composes a file with what it needs beside it; folders of a person's own are stood in for."""

    def compose_file(file):
        root, overrides = selection(file)
        for part, values in SMALL.get(file, {}).items():
            (tmp_path / part).mkdir()
            (tmp_path / part / "config.json").write_text(json.dumps(values))
            overrides = [*overrides, f"models.{part}.path={tmp_path / part}"]
        return load_config(root, overrides)

    return compose_file


@pytest.mark.parametrize("file", FILES)
def test_composes_and_builds_on_meta(file, compose):
    config = compose(file)
    if config.get("models") is None:
        return
    with torch.device("meta"):
        model = build_model(config)
    parameters = list(model.parameters())
    assert parameters
    assert all(parameter.is_meta for parameter in parameters)


TASKS = [file for file in FILES if file.startswith("task/")]


@pytest.mark.parametrize("file", TASKS)
def test_a_task_is_told_everything_but_what_the_run_gives(file, compose):
    """Its YAML mirrors its constructor; options and the engine come when it is built."""
    name = file.removeprefix("task/").removesuffix(".yaml")
    node = plain(compose(file).task[name])
    known = argument_names(node.pop(TARGET), file)
    assert set(node) <= set(known)
    assert set(known) - set(node) <= {"options", "engine"}
    first, second = (CONFIG_FOLDER / file).read_text(encoding="utf-8").splitlines()[:2]
    assert first == f"# @package task.{name}"
    assert second


TRAINING = [file for file in FILES if file.startswith(("experiment/", "lora/", "objective/"))]


@pytest.mark.parametrize("file", TRAINING)
def test_what_is_adapted_and_trained_is_there(file, compose):
    """Targets of low-rank updates, patterns of what is trained and of learning rates match."""
    config = compose(file)
    with torch.device("meta"):
        model = build_model(config)
        if config.lora is not None:
            recipe = build_part(config.lora)
            assert recipe.apply(recipe.part_of(model))
        if file.startswith("lora/"):
            return
        objective = build_part(config.objective, model=model)
        optimizer = build_part(config.train.optimizer)
        optimizer.fused = False  # there is no such kernel without memory
        optimizer.build(objective.trained_parameters())
    updates = {name for name, _ in model.named_parameters() if is_adapter(name)}
    assert updates <= set(objective.trained_parameters())


EXPERIMENTS = [file for file in FILES if file.startswith("experiment/")]


@pytest.mark.parametrize("file", EXPERIMENTS)
def test_every_experiment_says_what_it_is_and_how_it_is_run(file):
    package, *lines = (CONFIG_FOLDER / file).read_text(encoding="utf-8").splitlines()
    opening = list(takewhile(lambda line: line.startswith("#"), lines))
    assert package == "# @package _global_"
    assert opening[0].startswith("# ")
    name = file.removeprefix("experiment/").removesuffix(".yaml")
    command = re.compile(rf"#   mllm-npu train experiment={re.escape(name)}( |$)")
    assert any(command.match(line) for line in opening), opening


def test_an_option_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="no_such_option"):
        load_config("training", ["models/projector=no_such_option"])


def test_seedx_builds_without_memory_and_soon():
    """All of it, the de-tokenizer included; the limits are 20 s (of the processor) and 1.5 GB."""
    code = """
import resource, time
begin = time.process_time()
import torch
from mllm_npu.build import build_model
from mllm_npu.config import load_config
config = load_config("training", ["models=seedx_llama2_13b_qwenvl_vit", "processor=seedx"])
with torch.device("meta"):
    model = build_model(config)
count = sum(p.numel() for p in model.parameters()) + sum(b.numel() for b in model.buffers())
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(count, time.process_time() - begin, peak)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    count, seconds, gib = map(float, done.stdout.split())
    assert 17.5e9 < count < 18.5e9
    assert seconds < 20
    assert gib < 1.5
