"""The engine on a real small model and processor: one answer, however it is computed."""

import pytest
import torch
from PIL import Image

from mllm_npu.inference.engine import Engine, GenerationOptions
from mllm_npu.inference.prompts import embed_prompts
from mllm_npu.models.tiny import NUM_QUERIES, TILE_SIZE, tiny_mllm, tiny_seed
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.processing.conversation import Conversation, DrawnImage, Text, Turn, ask
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import train_tokenizer

QUESTIONS = ("Draw a seven.", "Which digit is this?", "What is the sum?", "Read the digits.")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def processor():
    tokenizer = train_tokenizer(QUESTIONS * 3, vocab_size=300)
    add_special_tokens(tokenizer, SpecialTokens(num_slots=8, num_locations=0))
    return Processor(
        tokenizer=tokenizer,
        any_resolution=AnyResolution(
            grids=["1x1", "2x1", "3x1"], tile_size=TILE_SIZE, repeat_single_tile=False
        ),
        chat_template=ChatTemplate(user_suffix="\n"),
        num_read_tokens=NUM_QUERIES,
        num_drawn_tokens=NUM_QUERIES,
        max_tokens=120,
    )


def make_engine(processor, model=None, **sizes):
    torch.manual_seed(0)
    model = model or tiny_seed()
    model.language_model.resize_vocabulary(len(processor.tokenizer))
    return Engine(model=model, processor=processor, device="cpu", **sizes)


@pytest.fixture(scope="module")
def engine(processor):
    return make_engine(processor)


def noise_picture(seed, size):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


@pytest.fixture(scope="module")
def conversations():
    sizes = ((16, 16), (40, 16), (16, 16), (20, 20), (48, 17))
    pictures = [noise_picture(number, size) for number, size in enumerate(sizes)]
    return [
        *(ask(question) for question in QUESTIONS),
        *(ask("Which digit is this?", [picture]) for picture in pictures),
        ask("What is the sum?", pictures[:2]),
        ask("What is the sum?", [pictures[2], pictures[3]]),
        *(ask("Draw a seven.") for _ in range(4)),
    ]


def assert_same(left, right):
    assert (left.text, left.finish_reason) == (right.text, right.finish_reason)
    assert (left.num_prompt_tokens, left.num_new_tokens) == (
        right.num_prompt_tokens,
        right.num_new_tokens,
    )
    assert len(left.pictures) == len(right.pictures)
    for ours, theirs in zip(left.features, right.features, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    for ours, theirs in zip(left.pictures, right.pictures, strict=True):
        pairs = zip(ours.tobytes(), theirs.tobytes(), strict=True)
        assert max(abs(a - b) for a, b in pairs) <= 1


@pytest.mark.parametrize("temperature", [0.0, 1.3])
@pytest.mark.parametrize("images", ["auto", "force", "forbid"])
def test_many_together_equal_each_alone(processor, engine, conversations, images, temperature):
    options = [
        GenerationOptions(
            max_new_tokens=6, images=images, temperature=temperature, seed=number, image_steps=2
        )
        for number in range(len(conversations))
    ]
    small = make_engine(processor, engine.model, max_batch=2, window=4)
    together = engine.reply_many(conversations, options)
    in_twos = small.reply_many(conversations, options)
    for place, conversation in enumerate(conversations):
        alone = engine.reply(conversation, options[place])
        assert_same(alone, together[place])
        assert_same(alone, in_twos[place])
    assert (
        all(bool(reply.pictures) == (images == "force") for reply in together) or images == "auto"
    )


def test_the_noise_of_a_picture_follows_its_seed(engine):
    def draw(seed):
        options = GenerationOptions(images="force", max_new_tokens=1, seed=seed, image_steps=2)
        return engine.reply(ask("Draw a seven."), options).pictures[0].tobytes()

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_slots_in_one_pass_equal_slots_one_by_one(processor, engine):
    conversation = ask("Draw a seven.")
    options = GenerationOptions(images="force", max_new_tokens=1, image_steps=1)
    [features] = engine.reply(conversation, options).features
    model, ids = engine.model, processor.image_ids
    block = (ids.begin, *ids.slots[:NUM_QUERIES])
    sample = processor.encode(conversation, reply=True)
    with torch.inference_mode():
        [prompt] = embed_prompts(model, [sample], CPU, 8)
        cache = model.language_model.new_cache()
        model.language_model.extend(prompt[None], cache)
        states = [
            model.language_model.extend(model.language_model.embed(torch.tensor([[one]])), cache)
            for one in block
        ]
        expected = model.predict_features(torch.cat(states[1:], dim=1))[0]
    torch.testing.assert_close(features, expected, atol=3e-6, rtol=1e-5)


def test_features_equal_those_that_training_sees(processor, engine):
    question = ask("Draw a seven.")
    options = GenerationOptions(images="force", max_new_tokens=1, image_steps=1)
    [features] = engine.reply(question, options).features
    drawn = Turn(
        role="assistant", parts=(DrawnImage(picture=noise_picture(0, (16, 16))),), learn=True
    )
    sample = processor.encode(Conversation(turns=(*question.turns, drawn)))
    model, length = engine.model, sample.num_tokens
    with torch.inference_mode():
        hidden = model.language_model(
            model.language_model.embed(sample.input_ids),
            position_ids_T=torch.arange(length),
            sequence_ends=(length,),
        )
        expected = model.predict_features(hidden[sample.draw_slots])[0]
    torch.testing.assert_close(features, expected, atol=3e-6, rtol=1e-5)


def test_a_drawn_picture_stays_in_the_conversation(processor, engine):
    drawn = Turn(role="assistant", parts=(DrawnImage(picture=noise_picture(0, (16, 16))),))
    further = Turn(role="user", parts=(Text(text="Draw a seven."),))
    conversation = Conversation(turns=(*ask("Draw a seven.").turns, drawn, further))
    options = GenerationOptions(images="force", max_new_tokens=1, image_steps=1)
    reply = engine.reply(conversation, options)
    alone = engine.reply(ask("Draw a seven."), options)
    assert len(reply.pictures) == 1
    assert reply.num_prompt_tokens == 2 * alone.num_prompt_tokens + NUM_QUERIES + 2
    assert not torch.allclose(reply.features[0], alone.features[0])


def test_a_model_that_only_reads_answers_in_text(processor):
    engine = make_engine(processor, tiny_mllm())
    reply = engine.reply(
        ask("Which digit is this?", [noise_picture(0, (40, 16))]), GenerationOptions()
    )
    assert (reply.pictures, engine.can_draw) == ((), False)
    assert reply.num_new_tokens > 0


def test_no_special_token_is_ever_said(processor, engine):
    hot = [GenerationOptions(temperature=5.0, seed=seed, image_steps=1) for seed in range(10)]
    replies = engine.reply_many([ask("Draw a seven.")] * 10, hot)
    assert not any("<" in reply.text and "img" in reply.text for reply in replies)
    assert all(reply.finish_reason in ("stop", "length") for reply in replies)


def test_redrawn_pictures_have_the_size_of_the_decoder(engine):
    pictures = [noise_picture(number, (30, 20)) for number in range(3)]
    redrawn = engine.redraw(pictures, GenerationOptions(image_steps=2))
    assert [picture.size for picture in redrawn] == [(TILE_SIZE, TILE_SIZE)] * 3
    [alone] = engine.redraw(pictures[1:2], GenerationOptions(image_steps=2))
    assert max(abs(a - b) for a, b in zip(alone.tobytes(), redrawn[1].tobytes(), strict=True)) <= 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_probabilities_and_penalties_equal_those_of_a_plain_forward(
    fakes, real_model, real_processor, temperature
):
    """Every chosen token follows from one forward over all of them, worked out slowly."""
    engine = Engine(model=real_model, processor=real_processor, device="cpu")
    question = ask("Which digit is this?", [fakes.noise_picture(5)])
    options = GenerationOptions(
        max_new_tokens=12,
        images="forbid",
        logprobs=3,
        repetition_penalty=1.4,
        temperature=temperature,
    )
    told = engine.reply(question, options).logprobs
    assert len(told) > 3
    row, sample = engine._maker.make(0, question, options)
    ids = [one.token_id for one in told]
    with torch.inference_mode():
        [prompt] = embed_prompts(real_model, [sample], CPU, 8)
        language_model = real_model.language_model
        embeds = torch.cat([prompt, language_model.embed(torch.tensor(ids))])
        hidden = language_model(
            embeds, position_ids_T=torch.arange(len(embeds)), sequence_ends=(len(embeds),)
        )
        scores = language_model.logits(hidden[len(prompt) - 1 : -1])
        scores = engine._tokens.mask_scores(scores, may_draw=[False] * len(scores))
    truth = scores.log_softmax(-1)
    for place, one in enumerate(told):
        assert one.logprob == pytest.approx(truth[place, one.token_id].item(), abs=1e-4)
        best = truth[place].topk(3)
        assert [top.token_id for top in one.top] == best.indices.tolist()
        assert [top.logprob for top in one.top] == pytest.approx(best.values.tolist(), abs=1e-4)
        weighed = scores[place].clone()
        for number in {*row.prompt_ids, *ids[:place]}:
            weighed[number] *= 1.4 if weighed[number] < 0 else 1 / 1.4
        if temperature == 0:
            assert one.token_id == int(weighed.argmax())


def test_a_stop_text_cuts_what_would_have_been_said(fakes, real_model, real_processor):
    engine = Engine(model=real_model, processor=real_processor, device="cpu")
    options = {"max_new_tokens": 30, "images": "forbid"}
    whole = engine.reply(ask("Draw a seven."), GenerationOptions(**options)).text
    assert len(whole) > 12
    for stop in (whole[5:9], whole[7:8], whole[3:14]):
        cut = engine.reply(ask("Draw a seven."), GenerationOptions(**options, stop=("zzzz", stop)))
        assert (cut.text, cut.finish_reason) == (whole[: whole.index(stop)], "stop")
