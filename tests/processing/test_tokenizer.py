"""A trained tokenizer writes any text, a loaded one is as saved, wrong folders are refused."""

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from mllm_npu.errors import ConfigError
from mllm_npu.processing.tokenizer import load_tokenizer, train_tokenizer

TEXTS = ["a handwritten seven", "which digit is this?", "407 plus 2 is 409"] * 4


def test_control_tokens_come_first():
    tokenizer = train_tokenizer(TEXTS, vocab_size=280)
    ids = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert ids == (0, 1, 2)
    assert len(tokenizer) == 280


@pytest.mark.parametrize("text", ["a handwritten seven", "Größe 7 手書き 🙂", "  two\n\tlines "])
def test_any_text_comes_back_unchanged(text):
    tokenizer = train_tokenizer(TEXTS, vocab_size=280)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_digits_are_tokens_of_their_own():
    tokenizer = train_tokenizer(["407 407 407 40740"] * 50, vocab_size=300)
    tokens = tokenizer.tokenize("407")
    assert tokens == ["4", "0", "7"]


def test_training_is_reproducible():
    first, second = (train_tokenizer(TEXTS, vocab_size=300).get_vocab() for _ in range(2))
    assert first == second


def test_a_vocabulary_without_room_for_bytes_is_refused():
    with pytest.raises(ConfigError, match=r"100 tokens.*259.*Raise vocab_size"):
        train_tokenizer(TEXTS, vocab_size=100)


def test_a_saved_tokenizer_is_loaded_as_it_was(tmp_path):
    tokenizer = train_tokenizer(TEXTS, vocab_size=280)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(path=str(tmp_path))
    assert loaded.get_vocab() == tokenizer.get_vocab()
    assert loaded.eos_token_id == tokenizer.eos_token_id
    assert loaded.encode("seven", add_special_tokens=False) == tokenizer.encode(
        "seven", add_special_tokens=False
    )


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        load_tokenizer(path=str(tmp_path / "nowhere"))


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ConfigError, match=r"cannot be read.*tokenizer\.json"):
        load_tokenizer(path=str(tmp_path))


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"model": 3}'])
def test_a_broken_file_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_tokenizer(path=str(tmp_path))


def test_a_tokenizer_that_cannot_end_is_refused(tmp_path):
    backend = Tokenizer(models.BPE({"a": 0}, []))
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no end-of-text token"):
        load_tokenizer(path=str(tmp_path))
