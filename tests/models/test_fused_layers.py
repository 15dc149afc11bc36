import copy

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from mllm_npu.models.fused_layers import fuse_layers
from mllm_npu.ops.ways import calls, only_reference

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
    "pad_token_id": 0,
}
FOUND = {
    "llama": {"rms_norm": 5, "rotary": 2, "swiglu": 2},
    "mistral": {"rms_norm": 5, "rotary": 2, "swiglu": 2},
    "qwen2": {"rms_norm": 5, "rotary": 2, "swiglu": 2},
    "qwen3": {"rms_norm": 9, "rotary": 2, "swiglu": 2},
    "granite": {"rms_norm": 5, "rotary": 2, "swiglu": 2},
    # Other norms and gates: 1 + weight, gelu.
    "gemma": {"rotary": 2},
    "gemma2": {"rotary": 2},
    # Gate and up in one matrix.
    "phi3": {"rms_norm": 5, "rotary": 2},
    # Norms without a weight, neighbours that turn together.
    "cohere": {"swiglu": 2},
    "gpt2": {},
    "gpt_neox": {"gelu": 2, "rotary": 2},
}


def make(family: str, **changes) -> nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**SIZES, **changes})
    return AutoModelForCausalLM.from_config(config).eval()


def run(model: nn.Module, dtype: torch.dtype) -> list[torch.Tensor]:
    model = model.to(dtype)
    ids = torch.arange(24).view(2, 12)
    logits = model(input_ids=ids).logits
    logits.float().square().sum().backward()
    return [logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("family", list(FOUND))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_family_computes_the_same_bits_through_our_operations(family, dtype):
    stock = make(family)
    fused = copy.deepcopy(stock)
    names = list(fused.state_dict())
    assert fuse_layers(fused) == FOUND[family]
    assert list(fused.state_dict()) == names
    (theirs, *their_gradients), (ours, *our_gradients) = run(stock, dtype), run(fused, dtype)
    assert torch.equal(theirs, ours)
    for their_gradient, our_gradient in zip(their_gradients, our_gradients, strict=True):
        # Sums over memory that lies in another order may differ in their last bit.
        torch.testing.assert_close(our_gradient, their_gradient, atol=1e-6, rtol=1e-5)


def test_every_exchanged_layer_really_calls_the_operation():
    model = make("llama")
    fuse_layers(model)
    before = calls()
    run(model, torch.float32)
    made = calls() - before
    counts = {op: sum(n for (name, _), n in made.items() if name == op) for op, _ in made}
    assert counts == {"rms_norm": 5, "rotate": 2 * 2, "swiglu": 2}
    before = calls()
    with only_reference():
        run(model, torch.float32)
    assert {way for _, way in calls() - before} == {"reference"}


def test_fusing_again_or_a_copy_or_a_hollow_model_is_the_same():
    model = make("llama")
    assert fuse_layers(model)
    assert fuse_layers(model) == {}
    ids = torch.arange(5)[None]
    assert torch.equal(copy.deepcopy(model)(input_ids=ids).logits, model(input_ids=ids).logits)
    with torch.device("meta"):
        hollow = make("llama")
        assert fuse_layers(hollow) == FOUND["llama"]
    assert all(p.is_meta for p in hollow.parameters())


def test_trying_a_layer_leaves_the_generators_of_the_process_alone():
    model = make("llama", rms_norm_eps=0.25)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    fuse_layers(model)
    assert torch.equal(torch.rand(2), expected)


class _Odd(nn.Module):
    """Looks like a norm and is none."""

    def __init__(self, forward_error: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.eps = 1e-6
        self.fails = forward_error

    def forward(self, x):
        if self.fails:
            raise RuntimeError("not like this")
        return x * self.weight


@pytest.mark.parametrize("fails", [False, True])
def test_a_layer_with_another_formula_or_call_stays(fails):
    kind = type(f"Odd{fails}", (_Odd,), {})
    model = nn.Sequential(
        kind(fails), nn.LayerNorm(4), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 2, 2, 1)
    )
    kinds = [type(layer) for layer in model]
    assert fuse_layers(model) == {}
    assert [type(layer) for layer in model] == kinds


@pytest.mark.parametrize("family", ["siglip_vision_model", "clip_vision_model", "dinov2"])
def test_patches_of_an_encoder_are_embedded_by_our_operation(family):
    sizes = {name: SIZES[name] for name in list(SIZES)[:4]}
    config = AutoConfig.for_model(family, **sizes, image_size=16, patch_size=4)
    torch.manual_seed(0)
    stock = AutoModel.from_config(config).eval()
    fused = copy.deepcopy(stock)
    found = fuse_layers(fused)
    assert found.pop("patch_embedding") == 1
    # One per block; the activation of SigLIP is the tanh form, that of CLIP a fast one.
    assert found == ({"gelu": SIZES["num_hidden_layers"]} if family == "dinov2" else {})
    pixels = torch.randn(2, 3, 16, 16)
    theirs, ours = (m(pixel_values=pixels).last_hidden_state for m in (stock, fused))
    assert torch.equal(theirs, ours)


def test_gates_of_diffusers_are_exact_on_every_device():
    from diffusers.models.activations import GEGLU

    torch.manual_seed(0)
    stock = GEGLU(8, 6)
    fused = nn.Sequential(copy.deepcopy(stock))
    assert fuse_layers(fused) == {"geglu": 1}
    x = torch.randn(3, 8)
    assert torch.equal(fused(x), stock(x))
    assert isinstance(fused[0], GEGLU)


def test_one_by_one_convolutions_and_other_gelus_stay():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU(approximate="tanh"))
    assert fuse_layers(model) == {}
    assert fuse_layers(nn.Sequential(nn.GELU())) == {"gelu": 1}
