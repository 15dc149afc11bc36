"""Texts side by side are one text to the tokenizer, and each keeps its label."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

from mllm_npu.batch import IGNORED_LABEL
from mllm_npu.processing.text_run import TextRun
from mllm_npu.processing.tokenizer import train_tokenizer

TEXTS = ["USER: what is this? ASSISTANT: a cat and a dog."] * 4


def bytes_alone():
    """As Llama 3 and Qwen have it."""
    return train_tokenizer(TEXTS, vocab_size=290).backend_tokenizer


def blank_first():
    """As Llama 2 and Mistral have it: a blank before every text that stands by itself."""
    tokenizer = Tokenizer(models.BPE())
    blanks = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(blanks)
    tokenizer.decoder = decoders.Replace("▁", " ")
    alphabet = sorted({*"".join(TEXTS), "▁", "<", ">"} - {" "})
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + 8, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


@pytest.fixture(params=[bytes_alone, blank_first])
def backend(request):
    tokenizer = request.param()
    tokenizer.add_special_tokens([AddedToken("<image>", normalized=False)])
    return tokenizer


def run_of(*texts):
    run = TextRun()
    for text, learn, is_frame in texts:
        run.add(text, learn=learn, is_frame=is_frame)
    return run


def test_the_whole_is_tokenised_as_one(backend):
    run = run_of(("USER: ", False, True), ("what is this?", False, False), (" ", False, True))
    ids, labels = run.encode(backend)
    assert ids == backend.encode("USER: what is this? ", add_special_tokens=False).ids
    assert set(labels) == {IGNORED_LABEL}


def test_a_token_across_two_texts_belongs_to_the_second(backend):
    run = run_of(("ASSISTANT:", False, True), (" ", True, True), ("a cat", True, False))
    ids, labels = run.encode(backend)
    learnt = [number for number, label in zip(ids, labels, strict=True) if label == number]
    # A token may reach from the frame into the answer, and is learnt then.
    assert backend.decode(learnt).strip().removeprefix(":").strip() == "a cat"
    before = backend.decode(ids[: len(ids) - len(learnt)]).strip()
    assert before in ("ASSISTANT:", "ASSISTANT")


def test_learnt_and_other_texts_alternate(backend):
    run = run_of(("a cat", True, False), (" and ", False, False), ("a dog", True, False))
    ids, labels = run.encode(backend)
    kept = [number for number, label in zip(ids, labels, strict=True) if label == IGNORED_LABEL]
    assert backend.decode(kept).strip() in ("and", "")
    assert 0 < len(kept) < len(ids)


def test_a_control_token_that_texts_spell_where_they_meet_is_found(backend):
    control = frozenset({backend.token_to_id("<image>")})
    apart = run_of(("<im", False, False), ("age>", False, False))
    ids, _ = apart.encode(backend)
    assert apart.spells(backend, ids, control) == backend.token_to_id("<image>")
    frame = run_of(("<image>", False, True), ("a cat", False, False))
    ids, _ = frame.encode(backend)
    assert frame.spells(backend, ids, control) is None
    both = run_of(("<image>", False, True), ("<image>", False, False))
    ids, _ = both.encode(backend)
    assert both.spells(backend, ids, control) == backend.token_to_id("<image>")


def test_nothing_is_nothing(backend):
    run = run_of(("", True, False))
    assert run.texts == []
    run.add("a", learn=False, is_frame=False)
    run.clear()
    assert (run.texts, run.learns, run.frames) == ([], [], [])
