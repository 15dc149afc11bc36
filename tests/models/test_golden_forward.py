"""The recorded forward pass of the original: embeddings, states, features, losses."""

import pytest
import torch
from torch import nn

from mllm_npu.batch import Batch
from mllm_npu.models.drawn_features import DrawnFeatures
from mllm_npu.models.image_decoder.flow import FlowImageDecoder
from mllm_npu.models.interfaces import VisionEncoder
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.mllm import SEED
from mllm_npu.models.projector.attention_resampler import AttentionResampler

TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}


class NoEncoder(VisionEncoder):
    """Stands where the recorded run had its Qwen encoder, whose features are not recorded."""

    width, num_tokens, tile_size = 128, 64, 56

    def forward(self, tiles_I3HW):
        raise NotImplementedError

    def sharding_units(self):
        return []


class Recorded(nn.Module):
    """Gives the recorded output of the input projector."""

    input_dim, output_dim, num_queries, num_tokens = 128, 64, 16, None

    def __init__(self, out_RQD):
        super().__init__()
        self.out_RQD = out_RQD

    def forward(self, features_RKV):
        return self.out_RQD


@pytest.fixture
def recorded(golden):
    return golden("i_mllm_forward")


def build(tensors, meta, take):
    llama = {k: v for k, v in meta["llama"].items() if k != "attn_implementation"}
    model = SEED(
        language_model=HuggingFaceLanguageModel(config={"model_type": "llama", **llama}),
        vision_encoder=NoEncoder(),
        projector=Recorded(tensors["out.proj_out"]),
        output_projector=AttentionResampler(
            input_dim=64, output_dim=128, num_queries=16, num_heads=4
        ),
        image_decoder=FlowImageDecoder(
            width=128, num_tokens=16, picture_size=8, block_channels=(8, 8)
        ),
        drawn_features=DrawnFeatures(width=128, num_tokens=16, normalize=False, pooling="sequence"),
        patch_positions=True,
    ).eval()
    weights = take(tensors, "w.language_model.")
    weights = {name: value for name, value in weights.items() if "inv_freq" not in name}
    model.language_model.causal_lm.load_state_dict(weights)
    model.output_projector.load_state_dict(take(tensors, "w.output_projector."))
    with torch.no_grad():
        model.patch_pos_embed.copy_(tensors["w.patch_pos_embed"])
    return model


def to_batch(recorded):
    """The padded rows of the original, end to end, as one pack."""
    ids, labels = recorded["input_ids"], recorded["labels"]
    rows, length = ids.shape
    reads = recorded["ids_cmp_mask"].flatten().nonzero().view(-1, 16)
    draws = recorded["ids_gen_mask"].flatten().nonzero().view(-1, 16)
    next_labels = nn.functional.pad(labels, (0, 1), value=-100)[:, 1:].flatten()
    places = (next_labels != -100).nonzero().flatten()
    tiles = recorded["images"]
    return Batch(
        input_ids=ids.flatten(),
        position_ids=torch.arange(length).repeat(rows),
        sequence_ends=tuple(length * (row + 1) for row in range(rows)),
        target_positions=places,
        targets=next_labels[places],
        target_sequences=places // length,
        tiles=tiles.to(torch.uint8),
        tile_positions=recorded["patch_positions"],
        read_tiles=recorded["embeds_cmp_mask"].nonzero().flatten(),
        read_slots=reads,
        draw_tiles=recorded["embeds_gen_mask"].nonzero().flatten(),
        draw_slots=draws,
        draw_weights=torch.ones(len(draws)),
        draw_sequences=draws[:, 0] // length,
        num_drawn=len(draws),
    )


def test_the_recorded_mixed_batch_is_met(recorded, take):
    tensors, meta = recorded
    model = build(tensors, meta, take)
    batch = to_batch(take(tensors, "in.mixed."))
    nothing = torch.zeros(len(batch.tiles), 64, 128)
    with torch.no_grad():
        embeds = model.embed_batch(batch, nothing)
        hidden = model.hidden(batch, tile_features_IKV=nothing)
        features = model.predict_features(model.drawn_hidden(batch, hidden))
        language = model(batch, tile_features_IKV=nothing).terms["language"]
    found = {
        "inputs_embeds": embeds,
        "last_hidden": hidden,
        "recon": features.flatten(0, 1),
        "logits_last8": model.language_model.logits(hidden)[:, -8:],
        "lm_loss": language.total / language.count,
    }
    for name, value in found.items():
        truth = tensors[f"out.{name}"].reshape(value.shape)
        torch.testing.assert_close(
            value, truth, **TOLERANCE, msg=lambda text, n=name: f"{n}: {text}"
        )
