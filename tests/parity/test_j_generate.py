"""Generated ids and the features of drawn pictures against the original's."""

import pytest
import torch
from safetensors.torch import save_file

from mllm_npu.inference.engine import Engine
from mllm_npu.inference.events import ImageMade
from mllm_npu.inference.live_row import LiveRow
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.models.drawn_features import DrawnFeatures
from mllm_npu.models.image_decoder.flow import FlowImageDecoder
from mllm_npu.models.language_model.huggingface import HuggingFaceLanguageModel
from mllm_npu.models.mllm import SEED
from mllm_npu.models.projector.attention_resampler import AttentionResampler
from mllm_npu.models.weights import load_weights
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import RAW
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.tokenizer import load_tokenizer

GOLDEN = "j_generate"
SLOTS = 16
RUNS = [
    "llama2.comprehend",
    "llama2.prompt_img_defaults",
    "llama2.text",
    "llama2.emit_eos",
    "hf.comprehend",
    "hf.prompt_img",
    "hf.prompt_img_defaults",
    "hf.text",
    "hf.emit",
    "hf.emit_eos",
    "llama2.batch2",
]


@pytest.fixture
def engine(golden, shared, take, vision_encoder, tmp_path):
    tensors, meta = golden("i_mllm_forward")
    llama = {k: v for k, v in meta["llama"].items() if k != "attn_implementation"}
    model = SEED(
        language_model=HuggingFaceLanguageModel(config={"model_type": "llama", **llama}),
        vision_encoder=vision_encoder(meta["vit"]),
        projector=AttentionResampler(input_dim=128, output_dim=64, num_queries=SLOTS, num_heads=4),
        output_projector=AttentionResampler(
            input_dim=64, output_dim=128, num_queries=SLOTS, num_heads=4
        ),
        image_decoder=FlowImageDecoder(
            width=128, num_tokens=SLOTS, picture_size=8, block_channels=(8, 8)
        ),
        drawn_features=DrawnFeatures(
            width=128, num_tokens=SLOTS, normalize=False, pooling="sequence"
        ),
        patch_positions=True,
    )
    save_file(take(tensors, "w."), tmp_path / "recorded.safetensors")
    load_weights(model, tmp_path / "recorded.safetensors", strict=False)
    processor = Processor(
        tokenizer=load_tokenizer(path=str(shared / "golden" / "tok_bpe")),
        any_resolution=AnyResolution(grids=["1x1"], tile_size=56, repeat_single_tile=True),
        chat_template=RAW,
        num_read_tokens=SLOTS,
        num_drawn_tokens=SLOTS,
        max_tokens=512,
    )
    engine = Engine(model=model, processor=processor, device="cpu")
    # The original hides the slots it uses and </img>; we hide every slot, tag and unused row.
    banned = torch.zeros_like(engine._tokens._banned_C)
    banned[[*engine._tokens.block[1:-1], engine._tokens.block[-1]]] = True
    engine._tokens._banned_C = banned
    return engine


@torch.no_grad()
def embed(engine, inputs):
    """Embeddings of a recorded prompt, its pictures in their slots."""
    ids = inputs["input_ids"][0]
    embeds = engine.model.language_model.embed(ids)
    if "pixel_values" not in inputs:
        return embeds, ids
    features = engine.model.vision_encoder.encode_pixels(inputs["pixel_values"])
    read = engine.model.read(features, inputs["patch_positions"])
    places = inputs["ids_cmp_mask"][0].nonzero().flatten()
    return embeds.index_copy(0, places, read.flatten(0, 1)), ids


def reply(engine, inputs, num_tokens, *, draw=False):
    """Ids behind the prompt and the features of pictures; our picture counts as one token."""
    embeds, ids = embed(engine, inputs)
    block = engine._tokens.block
    begun = ids[-1] == block[0]
    row = LiveRow(
        number=0,
        options=GenerationOptions(
            max_new_tokens=num_tokens, images="force" if begun or draw else "auto", image_steps=1
        ),
        prompt_LD=embeds[:-1] if begun else embeds,
        room=512 - len(ids),
        seed=0,
        decode=engine.processor.decode_text,
        image_block=block,
        stop_ids=frozenset({engine.processor.eos_id}),
    )
    if begun or draw:
        row.begin_picture()
    made = [event for _, event in engine._run([row]) if isinstance(event, ImageMade)]
    return row.ids[1:] if begun else row.ids, [image.features for image in made]


@pytest.mark.parametrize("name", RUNS)
def test_ids_and_features(golden, take, engine, deviation, name):
    tensors, meta = golden(GOLDEN)
    [recorded] = [entry for entry in meta["runs"] if entry["name"] == name]
    expected = recorded["generated_ids"]
    inputs = take(tensors, f"in.{name}.")
    num_pictures = recorded["num_gen_imgs"]
    starts_inside = inputs["input_ids"][0, -1] == engine._tokens.begin
    # A picture is 17 tokens of the original's count where the prompt opens it, else 18.
    num_tokens = len(expected) - num_pictures * (SLOTS + (0 if starts_inside else 1))
    # The recorded model was made to open a picture in these; that is asked for here.
    ids, features = reply(engine, inputs, num_tokens, draw=".emit" in name)
    assert ids == expected
    deviation(GOLDEN, ids, expected, atol=0, what=f"ids of {name}")
    if num_pictures:
        deviation(
            GOLDEN,
            torch.stack(features),
            tensors[f"out.{name}.img_gen_feat"],
            atol=1e-4,
            what=f"features of {name}",
        )


def test_a_picture_is_whole_however_short_the_reply(golden, take, engine):
    """The original leaves the first ten slots in the text, and gives no features."""
    tensors, meta = golden(GOLDEN)
    [recorded] = [entry for entry in meta["runs"] if entry["name"] == "hf.prompt_img_short"]
    assert recorded["num_gen_imgs"] == 0
    ids, features = reply(engine, take(tensors, "in.hf.prompt_img_short."), 1)
    assert ids == list(engine._tokens.block[1:])
    assert len(features) == 1


def test_scores_outside_a_picture(golden, engine, deviation):
    """Slots are never chosen; the original gives them 0, which wins where all else is negative."""
    tensors, meta = golden(GOLDEN)
    scores, after = tensors["in.proc.scores"], tensors["in.proc.input_ids"]
    image_ids = meta["img_ids_list"]
    for row in range(len(scores)):
        if after[row, -1].item() in image_ids[:-1]:
            continue  # inside a picture, where ours chooses nothing
        masked = engine._tokens.mask_scores(scores[row : row + 1], may_draw=[True])[0]
        text = torch.ones(len(masked), dtype=torch.bool)
        text[image_ids[1:]] = False
        deviation(GOLDEN, masked[text], tensors["out.proc.scores"][row][text], atol=0)
        assert (masked[~text] == -torch.inf).all()
