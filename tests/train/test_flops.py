"""FLOPs of whole steps: against counts of real ones, and against the numbers of the papers."""

import dataclasses
import time

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mllm_npu.build import build_model, build_part
from mllm_npu.config import load_config
from mllm_npu.errors import ConfigError
from mllm_npu.models.tiny import tiny_batch, tiny_language_model, tiny_seed
from mllm_npu.train.feature_cache import FeatureCache
from mllm_npu.train.flops import count_units, measure_costs
from mllm_npu.train.objectives.decoder import DecoderObjective
from mllm_npu.train.objectives.mllm import MultimodalObjective
from mllm_npu.train.objectives.vision import VisionObjective

ALL = ("*", "!image_decoder.*")
VISION = ("vision_encoder.*", "projector.*", "language_model.*", "patch_pos_embed")


def make_objective(name, **options):
    model = tiny_seed()
    match name:
        case "contrast":
            tower = tiny_language_model("qwen3")
            options |= {"text": "contrast", "text_tower": tower, "trainable": VISION[:1]}
            return VisionObjective(model=model, **options)
        case "caption":
            return VisionObjective(model=model, text="caption", trainable=VISION)
        case "decoder":
            return DecoderObjective(model=model, **options)
        case _:
            return MultimodalObjective(model=model, **{"trainable": ALL, **options})


def one_sequence(batch):
    """The same pack as one sequence, so that attention pads nothing."""
    num_tokens = batch.num_tokens
    ends, places = (num_tokens,), torch.arange(num_tokens)
    return dataclasses.replace(batch, sequence_ends=ends, position_ids=places, sources=("tiny",))


def attention(query, key, value, dropout=0.0, is_causal=False, *args, out_shape=None, **kwargs):
    batch, heads, length, width = query
    seen = length * (length + 1) // 2 if is_causal else length * key[2]
    return batch * heads * seen * 2 * (width + value[3])


def attention_backward(grad, query, key, value, out, lse, dropout, is_causal, **kwargs):
    return 2 * attention(query, key, value, is_causal=is_causal)


def added_product(into, left, right, out_shape=None, **kwargs):
    return 2 * left[0] * left[1] * left[2] * right[2]


def count_real(objective, batch):
    """What the dispatcher sees of a forward and backward pass on this CPU."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    formulas = {
        kernel: attention,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
        torch.ops.aten.baddbmm_: added_product,
    }
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        objective(batch).total(objective.counts(batch)).backward()
    assert kernel in counter.flop_counts["Global"]
    return counter.get_total_flops()


def count_squares(sequence_ends):
    starts = (0, *sequence_ends)
    return sum((end - start) ** 2 for start, end in zip(starts, sequence_ends, strict=False))


def assert_is_real(costs, batch, real, monkeypatch):
    """Exact, up to what some kernels compute of the half that a causal row does not see."""
    worth = costs.of([batch]).total
    monkeypatch.setattr("mllm_npu.train.flops._count_seen", count_squares)
    whole = costs.of([batch]).total
    assert worth <= whole < 1.2 * worth
    assert real in (pytest.approx(worth, rel=0.001), pytest.approx(whole, rel=0.001))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mllm", {}),
        ("mllm", {"trainable": ["projector.*"]}),
        ("mllm", {"trainable": ["*", "!image_decoder.*", "!vision_encoder.*"]}),
        ("mllm", {"trainable": ["output_projector.*", "language_model.*layers.1.mlp*"]}),
        ("decoder", {}),
        ("decoder", {"predicted_share": 0.0}),
        ("contrast", {}),
        ("caption", {}),
    ],
)
def test_a_real_step_of_the_tiny_seed_is_counted_right(name, options, monkeypatch):
    objective = make_objective(name, **options).train()
    batch = tiny_batch() if name == "contrast" else one_sequence(tiny_batch())
    costs = measure_costs(objective)
    assert_is_real(costs, batch, count_real(objective, batch), monkeypatch)
    assert costs.estimated == ()


def test_updates_that_multiply_weights_once_per_call_are_counted_right(monkeypatch):
    """DoRA multiplies its two matrices for the length of each row, however many tokens come."""
    from peft import LoraConfig, inject_adapter_in_model

    objective = make_objective("mllm", trainable=["projector.*"]).train()
    recipe = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], use_dora=True)
    inject_adapter_in_model(recipe, objective.model.language_model)
    costs, batch = measure_costs(objective), one_sequence(tiny_batch())
    assert costs.parts["language_model"]["calls"].forward > 0
    assert_is_real(costs, batch, count_real(objective, batch), monkeypatch)


def test_padding_of_attention_is_not_work():
    """Sequences of unequal lengths run padded; the step is worth what its tokens see."""
    objective = make_objective("mllm").train()
    costs, batch = measure_costs(objective), tiny_batch()
    assert costs.of([batch]).total < count_real(objective, batch)
    seen = sum(length * (length + 1) // 2 for length in (10, 12, 7, 8))
    assert count_units(batch)["attention"] == seen


def test_units_are_host_values_of_a_batch(make_batch):
    batch = make_batch("rd2b", texts={0: [2, 3], 1: [4], 2: [5]})
    units = count_units(batch, with_texts=True)
    assert units == {
        "calls": 1.0,
        "tiles": 6.0,
        "read_tiles": 4.0,
        "tokens": 4 + 3 + 5 + 4,
        "attention": 10 + 6 + 15 + 10,
        "targets": 4.0,
        "drawn": 2.0,
        "pictures": 2.0,
        "text_tokens": 2.0,  # one sequence has one read tile and a text
        "text_attention": 3.0,
        "pairs": 1.0,
        "pair_squares": 1.0,
    }
    edited = dataclasses.replace(batch, conditions=torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    assert count_units(edited)["pictures"] == 4.0
    assert "pairs" not in count_units(edited)


def test_a_step_is_the_sum_of_its_batches():
    costs, batch = measure_costs(make_objective("mllm")), tiny_batch()
    one, two = costs.of([batch]), costs.of([batch, batch])
    assert two.total == 2 * one.total
    assert two.parts == {name: 2 * value for name, value in one.parts.items()}
    assert one.hardware == one.total


def test_a_cached_encoder_counts_where_it_ran():
    cache = FeatureCache(max_gib=0.01)
    trainable = [*ALL, "!vision_encoder.*"]
    objective = make_objective("mllm", feature_cache=cache, trainable=trainable)
    batch, other = tiny_batch(), tiny_batch(seed=1)
    cache.features(other.tiles, objective.model.vision_encoder)  # before anybody counts
    costs = measure_costs(objective)
    per_tile = costs.parts["vision_encoder"]["tiles"].total
    objective(batch)
    first = costs.of([batch])
    assert first.parts["vision_encoder"] == 2 * per_tile
    objective(batch)
    second = costs.of([batch])
    assert second.parts["vision_encoder"] == 0
    assert second.total == first.total - 2 * per_tile
    for seed in range(2, 6):  # an evaluation
        cache.features(tiny_batch(seed=seed).tiles, objective.model.vision_encoder)
    assert costs.of([batch]).parts["vision_encoder"] == 2 * per_tile
    assert costs.of([batch]).parts["vision_encoder"] == 0


def test_cached_pictures_count_where_they_were_encoded(make_model, make_batch):
    latents = FeatureCache(max_gib=0.01)
    objective = DecoderObjective(model=make_model(), predicted_share=0.0, latent_cache=latents)
    costs, batch = measure_costs(objective), make_batch("dd")
    one = dataclasses.replace(costs.parts["picture_encoder"]["pictures"], forward=7.0)
    costs.parts["picture_encoder"] = {"pictures": one}
    objective(batch)
    assert costs.of([batch]).parts["picture_encoder"] == 14.0
    objective(batch)
    assert costs.of([batch]).parts["picture_encoder"] == 0.0


def test_what_is_computed_again_is_hardware_and_not_model():
    batch = tiny_batch()
    plain = measure_costs(make_objective("mllm")).of([batch])
    shares = {"language_model": 1.0, "vision_encoder": 0.5}
    again = measure_costs(make_objective("mllm"), recompute=shares)
    found = again.of([batch])
    units = count_units(batch)
    forward = {
        name: sum(cost.forward * units[unit] for unit, cost in again.parts[name].items())
        for name in shares
    }
    assert found.parts == plain.parts
    assert found.hardware - found.total == pytest.approx(
        forward["language_model"] + 0.5 * forward["vision_encoder"]
    )
    # A part without a backward pass is not run again.
    frozen = make_objective("mllm", trainable=["output_projector.*"])
    assert measure_costs(frozen, recompute=shares).of([batch]).hardware == pytest.approx(
        measure_costs(frozen).of([batch]).total
    )


def test_a_head_in_chunks_is_computed_again(monkeypatch):
    batch = tiny_batch()
    monkeypatch.setattr("mllm_npu.train.flops.MAX_LOGITS", 64 * (batch.num_targets - 1))
    costs = measure_costs(make_objective("mllm"))
    head = costs.parts["head"]["targets"]
    found = costs.of([batch])
    assert found.hardware - found.total == pytest.approx(head.forward * batch.num_targets)


def test_an_unknown_part_to_recompute_is_refused():
    with pytest.raises(ConfigError, match=r"langauge_model.*language_model"):
        measure_costs(make_objective("mllm"), recompute={"langauge_model": 1.0})


def test_seedx_13b_costs_six_per_parameter_and_token(record_property):
    """Llama 2 13B trained in full: 6 x 13e9 x tokens, found without memory in seconds."""
    config = load_config("training", ["models=seedx_llama2_13b_qwenvl_vit", "processor=seedx"])
    with torch.device("meta"):
        objective = build_part(config.objective, model=build_model(config))
    start = time.process_time()
    costs = measure_costs(objective)
    assert time.process_time() - start < 60
    tokens, length = 4096, 256
    per_token = costs.parts["language_model"]["tokens"].total
    per_target = costs.parts["head"]["targets"].total
    seen = costs.parts["language_model"]["attention"].total * (length + 1) / 2
    step = tokens * (per_token + per_target + seen)
    record_property("share_of_6_n_t", step / (6 * 13e9 * tokens))
    assert step == pytest.approx(6 * 13e9 * tokens, rel=0.03)
    # 1.9e9 weights see 1024 patches and then 256 queries, forward only: the encoder is frozen.
    assert costs.parts["vision_encoder"]["tiles"].total == pytest.approx(4.22e12, rel=0.01)
