"""A wrapped language model with a grown vocabulary, saved by peft 0.4, against the original's."""

import torch
from safetensors.torch import save_file

from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.weights import load_weights

GOLDEN = "m_lora_resize"


def build(golden, vocab_size):
    """The recorded sizes are those of the recorded model without its updates."""
    _, meta = golden("i_mllm_forward")
    llama = {k: v for k, v in meta["llama"].items() if k != "attn_implementation"}
    return HuggingFaceLanguageModel(
        config={"model_type": "llama", **llama}, vocab_size=vocab_size
    ).eval()


def test_logits_and_loss_with_the_updates_folded_in(golden, take, deviation, tmp_path):
    tensors, meta = golden(GOLDEN)
    model = build(golden, 741)
    save_file(take(tensors, "w."), tmp_path / "adapter.safetensors")
    report = load_weights(model, tmp_path / "adapter.safetensors", lora_alpha=meta["lora"]["alpha"])
    assert len(report.merged) == 2 * 7
    ids = tensors["in.ids"]
    rows = []
    with torch.no_grad():
        for row in ids:
            hidden = model(
                model.embed(row),
                position_ids_T=torch.arange(len(row)),
                sequence_ends=(len(row),),
            )
            rows.append(model.logits(hidden))
    logits = torch.stack(rows)
    shown = tensors["out.logits"].shape[-1]
    deviation(GOLDEN, logits[..., :shown], tensors["out.logits"], atol=1e-4, rtol=1e-5)
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    deviation(GOLDEN, loss, tensors["out.loss"], atol=0, rtol=1e-5, what="loss")


def test_new_rows(golden, deviation, take):
    """Means of the old rows in the table, three times their mean in the head."""
    tensors, _ = golden(GOLDEN)
    recorded, _ = golden("i_mllm_forward")
    model = build(golden, None)
    old = take(recorded, "w.language_model.")
    model.causal_lm.load_state_dict({k: v for k, v in old.items() if "inv_freq" not in k})
    model.resize_vocabulary(741)
    table = model.causal_lm.get_input_embeddings().weight.detach()
    head = model.causal_lm.get_output_embeddings().weight.detach()
    deviation(GOLDEN, table[731], tensors["out.embed_new_row"], atol=1e-6, what="table")
    deviation(GOLDEN, head[731], tensors["out.head_new_row"], atol=1e-6, what="head")
