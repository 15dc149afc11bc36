"""Weighed together equals weighed alone by a plain forward pass."""

import dataclasses

import pytest
import torch

from mllm_npu.batch import tile_blocks
from mllm_npu.errors import RequestError
from mllm_npu.inference.likelihood import LikelihoodScorer
from mllm_npu.inference.prompts import embed_prompts, encode_reply
from mllm_npu.processing.conversation import Conversation, ReadImage, Text, Turn, ask

CPU = torch.device("cpu")
SHOTS = "Draw a seven. What is the sum? Read the digits. Which digit is this? " * 3


@pytest.fixture
def scorer(real_model, real_processor):
    def make(**changes):
        values = {"max_tokens": 160, "max_rows": 6, "tokens_per_step": 400}
        return LikelihoodScorer(
            model=real_model, processor=real_processor, device=CPU, **{**values, **changes}
        )

    return make


@torch.inference_mode()
def weigh_alone(model, processor, conversation, text):
    """The slow truth: one sequence, one forward pass of training."""
    sample = processor.encode(conversation, reply=True)
    ids = torch.tensor(encode_reply(processor, conversation, text))
    embeds_LD = embed_prompts(model, [sample], CPU, 64)[0]
    whole_LD = torch.cat([embeds_LD, model.language_model.embed(ids).to(embeds_LD.dtype)])
    blocks = tile_blocks(sample.read_slots) if model.bidirectional_images else ()
    hidden_LD = model.language_model(
        whole_LD,
        position_ids_T=torch.arange(len(whole_LD)),
        sequence_ends=[len(whole_LD)],
        blocks=blocks,
    )
    logits_NV = model.language_model.logits(hidden_LD[len(embeds_LD) - 1 : -1]).float()
    logprobs = torch.log_softmax(logits_NV, -1).gather(1, ids[:, None])
    return float(logprobs.sum()), bool((logits_NV.argmax(-1) == ids).all())


def document(text, *pictures):
    parts = (*(ReadImage(picture=picture) for picture in pictures), Text(text=text))
    return Conversation(turns=(Turn(role="document", parts=parts),))


def check(model, processor, scorer, questions):
    found = dict(scorer.weigh(questions))
    assert sorted(found) == list(range(len(questions)))
    for number, (conversation, texts) in enumerate(questions):
        assert [weighed.text for weighed in found[number]] == list(texts)
        for weighed in found[number]:
            logprob, is_greedy = weigh_alone(model, processor, conversation, weighed.text)
            assert weighed.logprob == pytest.approx(logprob, abs=2e-5), (number, weighed)
            assert weighed.is_greedy == is_greedy
            assert weighed.num_tokens == len(encode_reply(processor, conversation, weighed.text))
    return found


@pytest.fixture
def questions(fakes):
    """Two families of solved examples, a picture with choices of all lengths, and loners."""
    picture, wide = fakes.noise_picture(1), fakes.noise_picture(2, (48, 16))
    letters = (" a", " b", " c")
    return [
        *((document(f"{SHOTS}{word}:"), letters) for word in ("sum", "digit", "Draw a", "is", "x")),
        (ask("Which digit is this?", [picture]), ("seven", "a", "the sum of the digits", "sum")),
        (ask("Which digit is this? Really?", [picture]), ("seven", "a")),
        *((document(f"x{SHOTS}{word}:"), letters) for word in ("a", "b", "c", "d" * 9, "e", "f")),
        (document("Read", wide), ("the digits", "the sum")),
        (ask("a"), ("b",)),
    ]


@pytest.mark.parametrize("shares", [True, False])
def test_weights_are_those_of_each_alone(real_model, real_processor, scorer, questions, shares):
    check(real_model, real_processor, scorer(shares=shares), questions)


@pytest.mark.parametrize(("max_rows", "tokens_per_step"), [(1, 10), (2, 1000), (64, 100_000)])
def test_how_many_run_together_does_not_matter(
    real_model, real_processor, scorer, questions, max_rows, tokens_per_step
):
    check(
        real_model,
        real_processor,
        scorer(max_rows=max_rows, tokens_per_step=tokens_per_step),
        questions,
    )


def test_tiles_that_see_all_of_themselves_are_never_cut(
    real_model, real_processor, scorer, questions, monkeypatch
):
    monkeypatch.setattr(real_model, "bidirectional_images", True)
    check(real_model, real_processor, scorer(), questions)


def test_what_is_in_common_is_fed_once(real_model, real_processor, scorer, monkeypatch):
    questions = [(document(f"{SHOTS}{word}:"), ("a", "b")) for word in "abcdefgh"]
    fed = []
    slots_of = real_model.language_model.new_slots

    def counted(*args, **options):
        slots = slots_of(*args, **options)
        advance = slots.advance
        monkeypatch.setattr(slots, "advance", lambda e, s: fed.append(len(e)) or advance(e, s))
        return slots

    monkeypatch.setattr(real_model.language_model, "new_slots", counted)
    list(scorer(max_rows=4).weigh(questions))
    assert len(fed) == 3
    shared = sum(fed)
    fed.clear()
    list(scorer(max_rows=4, shares=False).weigh(questions))
    whole = sum(fed)
    lengths = [real_processor.encode(each, reply=True).num_tokens for each, _ in questions]
    assert whole == sum(lengths)
    # The beginning once, though the family is fed in two parts, and the ends of all.
    assert shared < max(lengths) + 8 * 8


def test_tokens_are_weighed_as_words_are(real_model, real_processor, scorer, questions):
    """A question laid out before, its texts as tokens: windows of a long text are such."""
    laid_out = [
        (
            real_processor.encode(conversation, reply=True),
            [real_processor.encode_text(text) for text in texts],
        )
        for conversation, texts in questions
    ]
    by_words = dict(scorer().weigh(questions))
    assert dict(scorer().weigh(laid_out)) == by_words
    mixed = [(asked, texts) for (_, texts), (asked, _) in zip(questions, laid_out, strict=True)]
    assert dict(scorer().weigh(mixed)) == by_words


def test_a_text_the_model_would_write_is_greedy(fakes):
    model, processor = fakes.FakeModel(fakes.spell("ab cd")), fakes.ByteProcessor()
    scorer = LikelihoodScorer(model=model, processor=processor, device=CPU, max_tokens=64)
    processor.encode_text = lambda text: tuple(text.encode())
    [(_, (right, wrong))] = scorer.weigh([(ask("ab"), (" cd", " cx"))])
    assert right.is_greedy
    assert not wrong.is_greedy
    assert right.logprob > wrong.logprob


def test_questions_that_cannot_be_asked_are_refused_before_anything_runs(scorer, real_processor):
    with pytest.raises(RequestError, match="no texts to weigh"):
        list(scorer().weigh([(ask("a"), ())]))
    with pytest.raises(RequestError, match="A text is empty"):
        list(scorer().weigh([(ask("a"), ("",))]))
    with pytest.raises(RequestError, match="the model takes 20"):
        list(scorer(max_tokens=20).weigh([(document(SHOTS[:40]), ("a" * 30,))]))
    with pytest.raises(RequestError, match="prompt is empty"):
        list(scorer().weigh([(Conversation(turns=()), ("a",))]))
    sample = real_processor.encode(ask("a"), reply=True)
    with pytest.raises(RequestError, match="has no tokens"):
        list(scorer().weigh([(sample, ((),))]))
    nothing = dataclasses.replace(sample, input_ids=sample.input_ids[:0])
    with pytest.raises(RequestError, match="Give at least one token"):
        list(scorer().weigh([(nothing, ((5,),))]))
    assert list(scorer().weigh([])) == []
