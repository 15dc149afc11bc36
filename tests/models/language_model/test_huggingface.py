import pytest
import torch

from mllm_npu.errors import ConfigError, RequestError, WeightsError
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2")
FAMILIES += ("phi3", "gpt_neox", "opt", "gpt2", "cohere", "granite")
ENDS = (5, 6, 30, 42)


def run_packed(model, embeds, positions):
    return model(embeds, position_ids_T=positions(ENDS), sequence_ends=ENDS)


def run_alone(model, embeds):
    """Each sequence by itself through the stock model, its own attention and its own head."""
    starts = (0, *ENDS[:-1])
    parts = [embeds[None, start:end] for start, end in zip(starts, ENDS, strict=True)]
    hidden = [model.causal_lm.base_model(inputs_embeds=part).last_hidden_state for part in parts]
    logits = [model.causal_lm(inputs_embeds=part).logits for part in parts]
    return torch.cat(hidden, 1)[0], torch.cat(logits, 1)[0]


def gradients(loss, model, embeds):
    model.zero_grad()
    loss.backward()
    named = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {"embeds": embeds.grad.clone(), **named}


def compare_with_stock(family_config, positions, family, attention):
    config = family_config(family)
    ours = HuggingFaceLanguageModel(config=config, attention=attention).eval()
    stock = HuggingFaceLanguageModel(config=config, attention="per_sequence").eval()
    stock.load_state_dict(ours.state_dict())
    embeds = torch.randn(ENDS[-1], ours.width) * 0.5
    weights = torch.randn(ENDS[-1], 50)
    packed_in, alone_in = embeds.clone().requires_grad_(), embeds.clone().requires_grad_()
    packed = run_packed(ours, packed_in, positions)
    alone, alone_logits = run_alone(stock, alone_in)
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-4)
    logits = ours.logits(packed)
    torch.testing.assert_close(logits, alone_logits, atol=1e-5, rtol=1e-4)
    found = gradients((logits * weights).sum(), ours, packed_in)
    truth = gradients((alone_logits * weights).sum(), stock, alone_in)
    assert set(found) == set(truth)
    for name, gradient in truth.items():
        torch.testing.assert_close(found[name], gradient, atol=5e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pack_equals_each_sequence_alone(family_config, positions, family):
    compare_with_stock(family_config, positions, family, "packed")


@pytest.mark.parametrize("family", ["falcon", "bloom", "mamba", "llama"])
@pytest.mark.filterwarnings("ignore")
def test_padded_rows_equal_each_sequence_alone(family_config, positions, family):
    compare_with_stock(family_config, positions, family, "per_sequence")


@pytest.mark.parametrize("family", [*FAMILIES, "falcon"])
def test_a_cache_gives_what_one_pass_gives(family_config, family):
    attention = "per_sequence" if family == "falcon" else "packed"
    model = HuggingFaceLanguageModel(config=family_config(family), attention=attention).eval()
    embeds = torch.randn(3, 20, model.width) * 0.5
    cache, whole = model.new_cache(), model.new_cache()
    with torch.no_grad():
        steps = [model.extend(part, cache) for part in embeds.split([9, 1, 1, 7, 2], 1)]
        at_once = model.extend(embeds, whole)
    torch.testing.assert_close(torch.cat(steps, 1), at_once, atol=1e-5, rtol=1e-4)
    assert cache.lengths == (20, 20, 20)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt_neox", "opt"])
def test_rows_of_different_lengths_decode_as_if_alone(family_config, family):
    model = HuggingFaceLanguageModel(config=family_config(family)).eval()
    prompts, later = (3, 11, 7), ((1, 1, 1), (4, 0, 2), (1, 1, 1))
    rows = [torch.randn(20, model.width) * 0.5 for _ in prompts]
    cache, done = model.new_cache(), [0, 0, 0]
    found = [[], [], []]
    for lengths in (prompts, *later):
        padded = torch.zeros(3, max(lengths), model.width)
        for number, length in enumerate(lengths):
            padded[number, :length] = rows[number][done[number] : done[number] + length]
        with torch.no_grad():
            hidden = model.extend(padded, cache, lengths)
        for number, length in enumerate(lengths):
            found[number].append(hidden[number, :length])
            done[number] += length
    for number, row in enumerate(rows):
        with torch.no_grad():
            alone = model.extend(row[None, : done[number]], model.new_cache())[0]
        torch.testing.assert_close(torch.cat(found[number]), alone, atol=1e-5, rtol=1e-4)


def test_no_mask_of_the_size_of_the_pack_is_ever_made(family_config, positions):
    model = HuggingFaceLanguageModel(config=family_config("llama"))
    shapes = []
    ends = tuple(range(2, 62, 2))

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            shapes.extend(o.shape for o in (out if isinstance(out, tuple) else (out,))
                          if isinstance(o, torch.Tensor))  # fmt: skip
            return out

    with Watch():
        model(torch.randn(60, 32), position_ids_T=positions(ends), sequence_ends=ends)
    assert shapes
    assert not [shape for shape in shapes if list(shape).count(60) > 1]


@pytest.mark.parametrize("family", ["falcon", "bloom", "mamba"])
def test_a_family_that_cannot_run_packed_is_refused(family_config, family):
    with pytest.raises(ConfigError, match="attention=per_sequence"):
        HuggingFaceLanguageModel(config=family_config(family))


def test_a_family_with_layers_outside_attention_is_refused_at_its_first_pack(positions):
    config = {"model_type": "lfm2", "hidden_size": 32, "intermediate_size": 32, "vocab_size": 50}
    config |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config |= {"layer_types": ["conv", "full_attention"]}
    model = HuggingFaceLanguageModel(config=config)
    with pytest.raises(ConfigError, match="1 of 2 layers"):
        run_packed(model, torch.randn(ENDS[-1], 32), positions)


def test_a_family_without_a_cache_says_so(family_config):
    model = HuggingFaceLanguageModel(config=family_config("mamba"), attention="per_sequence")
    with pytest.raises(ConfigError, match="no key-value cache"):
        model.new_cache()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_sizze": 8}, "'hidden_sizze'.*near keys: hidden_size"),
        ({"model_type": "lama"}, "'lama'.*near names: .*llama"),
        ({"model_type": "siglip_vision_model"}, "'hidden_|unknown key"),
        ({"num_attention_heads": 5}, "multiple"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(family_config, changes, message):
    with pytest.raises(ConfigError, match=message):
        HuggingFaceLanguageModel(config={**family_config("llama"), **changes})


def test_a_model_that_is_no_language_model_is_refused():
    with pytest.raises(ConfigError, match="no causal language model"):
        HuggingFaceLanguageModel(config={"model_type": "siglip_vision_model"})


def test_unknown_options_are_refused(family_config):
    with pytest.raises(ConfigError, match="flash"):
        HuggingFaceLanguageModel(config=family_config("llama"), attention="flash")
    with pytest.raises(ConfigError, match="float8"):
        HuggingFaceLanguageModel(config=family_config("llama"), dtype="float8")


def test_packs_and_rows_that_do_not_fit_are_refused(family_config):
    model = HuggingFaceLanguageModel(config=family_config("llama"))
    long = torch.randn(65, 32)
    with pytest.raises(RequestError, match=r"65 tokens .* at most 64"):
        model(long, position_ids_T=torch.arange(65), sequence_ends=(65,))
    with pytest.raises(RequestError, match="65"):
        model.extend(long[None], model.new_cache())
    with pytest.raises(RequestError, match="number of tokens, 65"):
        model(long, position_ids_T=torch.arange(65), sequence_ends=(5, 60))
    rows = HuggingFaceLanguageModel(config=family_config("llama"), attention="per_sequence")
    with pytest.raises(RequestError, match="one by one"):
        rows.extend(torch.randn(2, 3, 32), rows.new_cache(), (3, 2))


@pytest.mark.parametrize("tied", [True, False])
def test_the_vocabulary_grows_by_means(family_config, tied):
    config = family_config("llama", tie_word_embeddings=tied)
    model = HuggingFaceLanguageModel(config=config)
    before = model.causal_lm.get_input_embeddings().weight.detach().clone()
    head = model.causal_lm.get_output_embeddings().weight.detach().clone()
    model.resize_vocabulary(53)
    after = model.causal_lm.get_input_embeddings().weight
    new_head = model.causal_lm.get_output_embeddings().weight
    assert model.vocab_size == 53
    assert torch.equal(after[:50], before)
    torch.testing.assert_close(after[51], before.mean(0))
    torch.testing.assert_close(new_head[52], (1 if tied else 3) * head.mean(0))
    assert (new_head is after) == tied
    assert model.logits(torch.randn(2, 32)).shape == (2, 53)
    with pytest.raises(ConfigError, match="cannot shrink to 10"):
        model.resize_vocabulary(10)


@pytest.mark.parametrize("new_rows", ["mean_times_3", "mean_resizing"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_vocabulary_grows_while_building(family_config, new_rows, tied, tmp_path):
    config = family_config("llama", tie_word_embeddings=tied)
    old = HuggingFaceLanguageModel(config=config)
    old.causal_lm.save_pretrained(tmp_path)
    grown = HuggingFaceLanguageModel(path=str(tmp_path), vocab_size=60, new_rows=new_rows)
    assert grown.vocab_size == grown.causal_lm.config.vocab_size == 60
    before, after = (m.causal_lm.get_input_embeddings().weight for m in (old, grown))
    old_head, head = (m.causal_lm.get_output_embeddings().weight for m in (old, grown))
    assert (head is after) == tied
    assert torch.equal(after[:50], before)
    assert torch.equal(head[:50], old_head)
    # What transformers draws lies as near to the mean as it makes the covariance small.
    times = 3 if new_rows == "mean_times_3" and not tied else 1
    torch.testing.assert_close(after[50:], before.mean(0).expand(10, -1), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        head[50:], times * old_head.mean(0).expand(10, -1), atol=1e-4, rtol=0
    )
    assert after[50:].unique(dim=0).shape[0] == (10 if new_rows == "mean_resizing" else 1)


@pytest.mark.parametrize("new_rows", ["mean_times_3", "mean_resizing"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_vocabulary_grows_without_memory(family_config, new_rows, tied):
    with torch.device("meta"):
        model = HuggingFaceLanguageModel(
            config=family_config("llama", tie_word_embeddings=tied),
            vocab_size=60,
            new_rows=new_rows,
        )
    table = model.causal_lm.get_input_embeddings().weight
    head = model.causal_lm.get_output_embeddings().weight
    assert all(parameter.is_meta for parameter in model.parameters())
    assert model.vocab_size == len(table) == len(head) == 60
    assert (head is table) == tied


def test_a_growth_that_makes_no_sense_is_refused(family_config):
    with pytest.raises(ConfigError, match="cannot shrink to 40"):
        HuggingFaceLanguageModel(config=family_config("llama"), vocab_size=40)
    with pytest.raises(ConfigError, match="new_rows='zeros'"):
        HuggingFaceLanguageModel(config=family_config("llama"), new_rows="zeros")


def test_a_saved_folder_is_loaded_and_an_incomplete_one_refused(family_config, tmp_path):
    model = HuggingFaceLanguageModel(config=family_config("qwen3"))
    model.causal_lm.save_pretrained(tmp_path / "whole")
    again = HuggingFaceLanguageModel(path=str(tmp_path / "whole"))
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    weights = dict(model.causal_lm.state_dict())
    weights.pop("model.layers.0.mlp.up_proj.weight")
    model.causal_lm.save_pretrained(tmp_path / "part", state_dict=weights)
    with pytest.raises(WeightsError, match="lacks 1 parameters"):
        HuggingFaceLanguageModel(path=str(tmp_path / "part"))


def test_it_builds_and_runs_without_memory(family_config, tmp_path):
    HuggingFaceLanguageModel(config=family_config("llama")).causal_lm.save_pretrained(tmp_path)
    for source in ({"config": family_config("llama")}, {"path": str(tmp_path)}):
        with torch.device("meta"):
            model = HuggingFaceLanguageModel(**source)
            hidden = model(torch.randn(4, 32), position_ids_T=torch.arange(4), sequence_ends=(4,))
        assert all(parameter.is_meta for parameter in model.parameters())
        assert hidden.is_meta


def test_sharding_units_are_the_decoder_blocks(family_config):
    for family in ("llama", "gpt2", "gpt_neox", "opt"):
        units = HuggingFaceLanguageModel(config=family_config(family)).sharding_units()
        assert len(units) == 2
        assert (
            "layer" in type(units[0]).__name__.lower() or "block" in type(units[0]).__name__.lower()
        )


def test_a_window_that_no_layer_passes_on_limits_the_length(family_config):
    model = HuggingFaceLanguageModel(config=family_config("mistral"))
    model._check_layers([5, 5])
    model._check_length(6)
    model._check_layers([None, None])
    with pytest.raises(RequestError, match="at most 5"):
        model._check_length(6)


def test_heads_that_cannot_be_shared_out_are_refused(family_config):
    config = {**family_config("llama"), "num_attention_heads": 4, "num_key_value_heads": 3}
    with pytest.raises(ConfigError, match=r"num_attention_heads=4 and num_key_value_heads=3"):
        HuggingFaceLanguageModel(config=config)


def test_the_longest_sequence_is_known(family_config):
    config = {**family_config("llama"), "max_position_embeddings": 77}
    assert HuggingFaceLanguageModel(config=config).max_tokens == 77
