"""Losses, states and gradients of the models against the original's, batch by batch."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mllm_npu.batch import Batch
from mllm_npu.models.drawn_features import DrawnFeatures
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.mllm import SEED, GeneraliazedMultimodalModels
from mllm_npu.models.projector.attention_resampler import AttentionResampler
from mllm_npu.models.weights import load_weights

GOLDEN = "i_mllm_forward"
SLOTS = 16
BLANK = 16
"""Tokens of the sequence that stands for what a batch does not have."""


def build(tensors, meta, take, vision_encoder, tmp_path, kind, *, positions, image_weight=1.0):
    llama = {k: v for k, v in meta["llama"].items() if k != "attn_implementation"}
    parts = {
        "language_model": HuggingFaceLanguageModel(config={"model_type": "llama", **llama}),
        "vision_encoder": vision_encoder(meta["vit"]),
        "projector": AttentionResampler(
            input_dim=128, output_dim=64, num_queries=SLOTS, num_heads=4
        ),
        "patch_positions": positions,
    }
    if kind == "SEED":
        model = SEED(
            **parts,
            output_projector=AttentionResampler(
                input_dim=64, output_dim=128, num_queries=SLOTS, num_heads=4
            ),
            drawn_features=DrawnFeatures(
                width=128, num_tokens=SLOTS, normalize=False, pooling="sequence"
            ),
            image_weight=image_weight,
        )
    else:
        model = GeneraliazedMultimodalModels(**parts)
    save_file(take(tensors, "w."), tmp_path / "recorded.safetensors")
    report = load_weights(model, tmp_path / "recorded.safetensors", strict=False)
    assert report.missing == ()
    model.vision_encoder.requires_grad_(False)
    return model.eval()


def to_batch(recorded):
    """The padded rows of the original as a pack; a blank sequence reads or draws what none does."""
    ids, labels = recorded["input_ids"], recorded["labels"]
    rows, length = ids.shape
    reads = recorded["ids_cmp_mask"].flatten().nonzero().view(-1, SLOTS)
    draws = recorded["ids_gen_mask"].flatten().nonzero().view(-1, SLOTS)
    tiles = recorded.get("images", torch.empty(0, 3, 56, 56))
    places = recorded.get("patch_positions", torch.empty(0, 2))
    read_tiles = recorded.get("embeds_cmp_mask", torch.empty(0)).nonzero().flatten()
    draw_tiles = recorded.get("embeds_gen_mask", torch.empty(0)).nonzero().flatten()
    blank = torch.arange(BLANK)[None] + rows * length
    last = torch.tensor([len(tiles)])
    next_labels = nn.functional.pad(labels, (0, 1), value=-100)[:, 1:].flatten()
    targets = (next_labels != -100).nonzero().flatten()
    batch = Batch(
        input_ids=torch.cat([ids.flatten(), torch.zeros(BLANK, dtype=torch.int64)]),
        position_ids=torch.cat([torch.arange(length).repeat(rows), torch.arange(BLANK)]),
        sequence_ends=(*(length * (row + 1) for row in range(rows)), length * rows + BLANK),
        target_positions=targets,
        targets=next_labels[targets],
        target_sequences=targets // length,
        tiles=torch.zeros(len(tiles) + 1, 3, 56, 56, dtype=torch.uint8),
        tile_positions=torch.cat([places, torch.full((1, 2), 0.5)]),
        read_tiles=read_tiles if len(reads) else last,
        read_slots=reads if len(reads) else blank,
        draw_tiles=draw_tiles if len(draws) else last,
        draw_slots=draws if len(draws) else blank,
        draw_weights=torch.ones(len(draws)) if len(draws) else torch.zeros(1),
        draw_sequences=torch.zeros(max(1, len(draws)), dtype=torch.int64),
        num_drawn=len(draws),
    )
    return batch, torch.cat([tiles, torch.zeros(1, 3, 56, 56)])


def run(model, batch, pixels):
    """Losses, and norms of the gradients under the names of the original."""
    with torch.no_grad():
        features = model.vision_encoder.encode_pixels(pixels)
    losses = model(batch, tile_features_IKV=features)
    counts = {name: float(term.count) for name, term in losses.terms.items()}
    total = losses.total(counts)
    total.backward()
    found = {
        "total_loss": total.detach(),
        "lm_loss": losses.terms["language"].total.detach() / counts["language"],
    }
    if "image" in losses.terms:
        found["rec_loss"] = losses.terms["image"].total.detach() / max(counts["image"], 1)
    norms = {
        name.replace("causal_lm.", ""): parameter.grad.norm()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return found, norms


SAME_WEIGHTS = [
    "seed_mse_llama2_mixed",
    "seed_mse_llama2_cmp",
    "seed_mse_llama2_gen",
    "seed_mse_llama3_gen",
    "seed_mse_hf_mixed",
    "seed_mse_hf_cmp",
    "seed_mse_hf_gen",
    "seed_mse_noadd_mixed",
    "gmm_mixed",
    "gmm_cmp",
    "gmm_nopatch_cmp",
]
OTHER_PROJECTOR = ["gmm1152_textlong", "gmm1152_gen"]
"""Nothing is read in these, so that the projector, whose weights are not recorded, has no say."""


def prepare(golden, take, vision_encoder, tmp_path, name):
    tensors, meta = golden(GOLDEN)
    [recorded] = [entry for entry in meta["runs"] if entry["name"] == name]
    model = build(
        tensors,
        meta,
        take,
        vision_encoder,
        tmp_path,
        recorded["cls"],
        positions=recorded["kw"]["add_patch_pos"],
        image_weight=recorded["kw"].get("rec_loss_scale", 1.0),
    )
    return recorded, model, to_batch(take(tensors, f"in.{recorded['batch']}."))


@pytest.mark.parametrize("name", SAME_WEIGHTS)
def test_losses_and_gradients(golden, take, vision_encoder, deviation, tmp_path, name):
    recorded, model, given = prepare(golden, take, vision_encoder, tmp_path, name)
    losses, norms = run(model, *given)
    for part, value in recorded["losses"].items():
        deviation(GOLDEN, losses[part], value, atol=1e-7, rtol=1e-5, what=f"{name} {part}")
    for part, value in recorded["grad_norms"].items():
        deviation(GOLDEN, norms.get(part, 0.0), value, atol=1e-8, rtol=1e-5, what=f"{name} {part}")
    total = torch.stack(list(norms.values())).norm()
    deviation(GOLDEN, total, recorded["grad_total_norm"], atol=0, rtol=1e-5, what=name)
    assert not any(name.startswith("vision_encoder") for name in norms)


@pytest.mark.parametrize("name", OTHER_PROJECTOR)
def test_losses_where_nothing_is_read(golden, take, vision_encoder, deviation, tmp_path, name):
    recorded, model, given = prepare(golden, take, vision_encoder, tmp_path, name)
    losses, norms = run(model, *given)
    deviation(GOLDEN, losses["lm_loss"], recorded["losses"]["lm_loss"], atol=0, rtol=1e-5)
    for part, value in recorded["grad_norms"].items():
        if part.startswith("language_model"):
            deviation(GOLDEN, norms[part], value, atol=1e-8, rtol=1e-5, what=f"{name} {part}")


@pytest.mark.parametrize("batch", ["text", "textlong"])
@pytest.mark.parametrize("kind", ["SEED", "GMM"])
def test_text_alone_trains_where_the_original_fails(
    golden, take, vision_encoder, tmp_path, kind, batch
):
    """Recorded as errors: masks that are None, stand-ins of a fixed size, too short a sequence."""
    tensors, meta = golden(GOLDEN)
    assert all(
        "error" in entry
        for entry in meta["runs"]
        if entry["name"] in (f"seed_{batch}", f"gmm_{batch}")
    )
    model = build(tensors, meta, take, vision_encoder, tmp_path, kind, positions=True)
    losses, norms = run(model, *to_batch(take(tensors, f"in.{batch}.")))
    assert losses["lm_loss"] > 1
    assert losses.get("rec_loss", 0.0) == 0.0
    assert all(norm.isfinite() for norm in norms.values())
    assert norms["projector.query"] == 0


def test_states_on_the_way(golden, take, vision_encoder, deviation, tmp_path):
    tensors, meta = golden(GOLDEN)
    model = build(tensors, meta, take, vision_encoder, tmp_path, "SEED", positions=True)
    batch, pixels = to_batch(take(tensors, "in.mixed."))
    with torch.no_grad():
        features = model.vision_encoder.encode_pixels(pixels)
        hidden = model.hidden(batch, tile_features_IKV=features)
        found = {
            "proj_out": model.projector(features[batch.read_tiles]),
            "inputs_embeds": model.embed_batch(batch, features)[:-BLANK],
            "last_hidden": hidden[:-BLANK],
            "recon": model.predict_features(model.drawn_hidden(batch, hidden)),
            "logits_last8": model.language_model.logits(hidden[:-BLANK])[:, -8:],
        }
    for name, value in found.items():
        truth = tensors[f"out.{name}"]
        deviation(GOLDEN, value.reshape(truth.shape), truth, atol=1e-5, rtol=1e-5, what=name)
