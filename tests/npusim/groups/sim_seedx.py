"""A step of the published SEED-X configuration on tensors without memory: what it calls."""

import itertools
from collections import Counter

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mllm_npu.batch import Batch
from mllm_npu.build import build_objective, build_processor
from mllm_npu.composition import StartingValues
from mllm_npu.config import load_config
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer

LENGTHS = (700, 420, 880)
LAYERS, VISION_LAYERS, QUERIES = 40, 48, 64


class Watching(TorchDispatchMode):
    """Counts operators, and keeps what is as large as scores of sequences."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()
        self.square = set()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **(kwargs or {}))
        self.calls[operator.name()] += 1
        for tensor in out if isinstance(out, tuple | list) else [out]:
            shape = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else ()
            if len(shape) > 1 and set(shape[-2:]) <= {*LENGTHS, sum(LENGTHS)}:
                self.square.add((operator.name(), shape))
        return out


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seedx")
    tokenizer = train_tokenizer(["draw a seven", "which digit is this?"], vocab_size=300)
    add_special_tokens(tokenizer, SpecialTokens(num_slots=100, num_locations=224))
    tokenizer.save_pretrained(folder)
    return folder


def make_batch(ends, tile_size: int) -> Batch:
    """Two pictures read and one drawn, in the first two sequences."""
    steps = torch.arange(QUERIES)
    targets = torch.arange(ends[0] - 40, ends[0] - 1)
    return Batch(
        input_ids=torch.zeros(ends[-1], dtype=torch.int64),
        position_ids=torch.cat([torch.arange(length) for length in LENGTHS]),
        sequence_ends=ends,
        target_positions=targets,
        targets=torch.zeros(len(targets), dtype=torch.int64),
        target_sequences=torch.zeros(len(targets), dtype=torch.int64),
        tiles=torch.zeros(3, 3, tile_size, tile_size, dtype=torch.uint8),
        tile_positions=torch.full((3, 2), 0.5),
        read_tiles=torch.tensor([0, 1]),
        read_slots=torch.stack([steps + 2, steps + 100]),
        read_blocks=((2, 66), (100, 164)),
        draw_tiles=torch.tensor([2]),
        draw_slots=steps[None] + ends[0] + 3,
        draw_weights=torch.ones(1),
        draw_sequences=torch.tensor([1]),
        num_drawn=1,
        sources=("a", "b", "c"),
        tasks=("caption", "caption", "text"),
    )


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_step_of_seedx_calls_the_fused_operations_and_makes_no_mask_of_its_size(
    tokenizer, bidirectional
):
    config = load_config(
        "training",
        [
            "experiment=seedx/sft",
            f"tokenizer.path={tokenizer}",
            "models.pretrained_model_name_path=later",
            f"models.bidirectional_images={str(bidirectional).lower()}",
        ],
    )
    ends = tuple(itertools.accumulate(LENGTHS))
    values = StartingValues(config, weights=["all"])
    objective = build_objective(config, values, build_processor(config))
    watching = Watching()
    with FakeTensorMode(allow_non_fake_inputs=True):
        objective.to_empty(device="npu")
        objective.compute_on(torch.device("npu"))
        objective.train()
        batch = make_batch(ends, objective.model.vision_encoder.tile_size)
        with watching, torch.autocast("npu", torch.bfloat16):
            losses = objective(batch)
            losses.total({"language": 39.0, "image": 1.0}).backward()
    calls = {name.removeprefix("npu::"): n for name, n in watching.calls.items()}
    in_language = LAYERS * (2 if bidirectional else 1)
    in_projectors = 2
    pooled = 1
    trained = in_language + in_projectors
    assert calls["npu_fusion_attention"] == trained + VISION_LAYERS + pooled
    assert calls["npu_fusion_attention_grad"] == trained
    assert calls["npu_rms_norm"] == calls["npu_rms_norm_backward"] == 2 * LAYERS + 1
    assert calls["npu_rotary_mul"] == calls["npu_rotary_mul_backward"] == 2 * LAYERS
    assert calls["npu_swiglu"] == calls["npu_swiglu_backward"] == LAYERS
    assert calls["npu_gelu"] == VISION_LAYERS
    assert watching.square == set()
    # In training nothing of the model is computed by what torch composes of small steps.
    assert not {name for name in calls if "_scaled_dot_product" in name and "math" in name}
