"""A SentencePiece folder gives the ids of its library; spaces are marked as its settings say."""

import json
import shutil

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models

from mllm_npu.errors import ConfigError
from mllm_npu.processing import sentencepiece_model
from mllm_npu.processing.sentencepiece_model import PROBES, is_llama_model, mark_spaces
from mllm_npu.processing.tokenizer import load_tokenizer


@pytest.fixture
def backend() -> Tokenizer:
    """Single letters, the mark and the bytes; every added token is spelt as the original did."""
    pieces = ["<unk>", *(f"<0x{number:02X}>" for number in range(256)), "▁", *"abc"]
    model = models.BPE(
        {piece: number for number, piece in enumerate(pieces)},
        [],
        unk_token="<unk>",
        byte_fallback=True,
        fuse_unk=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_tokens([AddedToken("<img>", normalized=True)])
    return tokenizer


@pytest.fixture
def library():
    return pytest.importorskip("sentencepiece", reason="the sentencepiece library is not installed")


def spell(tokenizer: Tokenizer, text: str) -> str:
    return " ".join(tokenizer.encode(text).tokens)


def test_the_old_way_marks_every_piece_between_added_tokens(backend):
    marked = mark_spaces(backend, legacy=True, at_start=True)
    assert spell(marked, "ab c") == "▁ a b ▁ c"
    assert spell(marked, "\n") == "▁ <0x0A>"
    assert spell(marked, "a<img>b") == "▁ a <img> ▁ b"
    assert spell(marked, " a") == "▁ ▁ a"


def test_the_new_way_marks_the_start_of_a_text(backend):
    marked = mark_spaces(backend, legacy=False, at_start=True)
    assert spell(marked, "ab c") == "▁ a b ▁ c"
    assert spell(marked, "a<img>b") == "▁ a <img> b"


def test_without_a_prefix_only_spaces_are_marked(backend):
    marked = mark_spaces(backend, legacy=False, at_start=False)
    assert spell(marked, "ab c") == "a b ▁ c"
    assert spell(marked, "\n") == "<0x0A>"


def test_the_given_tokenizer_is_not_changed(backend):
    before = backend.to_str()
    mark_spaces(backend, legacy=True, at_start=True)
    assert backend.to_str() == before


@pytest.mark.parametrize(
    ("files", "settings", "expected"),
    [
        (["tokenizer.model"], None, True),
        (["tokenizer.model"], {"tokenizer_class": "LlamaTokenizer"}, True),
        (["tokenizer.model"], {"tokenizer_class": "T5Tokenizer"}, False),
        (["tokenizer.model", "tokenizer.json"], None, False),
        ([], {"tokenizer_class": "LlamaTokenizer"}, False),
    ],
)
def test_which_folders_are_meant(tmp_path, files, settings, expected):
    for name in files:
        (tmp_path / name).write_bytes(b"")
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert is_llama_model(tmp_path) is expected


def test_without_the_library_it_is_said_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "tokenizer.model").write_bytes(b"")
    monkeypatch.setattr(sentencepiece_model.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"tokenizer\.model and no .*mllm-npu\[seedx\]"):
        load_tokenizer(path=str(tmp_path))


@pytest.mark.parametrize("is_bare", [False, True])
def test_ids_are_those_of_the_library(library, shared, tmp_path, is_bare):
    folder = shared / "golden" / "tok_sp"
    model = folder / "tokenizer.model"
    if is_bare:
        shutil.copy(model, tmp_path)
    tokenizer = load_tokenizer(path=str(tmp_path if is_bare else folder))
    truth = library.SentencePieceProcessor(model_file=str(model))
    assert len(tokenizer) == (400 if is_bare else 730)
    for text in (*PROBES, "  two", "[INST] a cat [/INST]\n"):
        assert tokenizer.encode(text, add_special_tokens=False) == truth.encode(text)


def test_ids_are_those_recorded_of_the_original(library, shared):
    """Recorded layout: bos, caption, picture of four slots, line break, eos."""
    tokenizer = load_tokenizer(path=str(shared / "golden" / "tok_sp"))
    text = "a photo of a cat<img><img_00000><img_00001><img_00002><img_00003></img>\n"
    expected = [259, 274, 315, 330, 294, 259, 290, 266, 726, 400, 401, 402, 403, 727, 341, 13]
    assert tokenizer.encode(text, add_special_tokens=False) == expected
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 0)


def test_the_settings_beside_the_model_are_heard(library, shared, tmp_path):
    """Recorded of the original with legacy=False and add_prefix_space=False."""
    folder = tmp_path / "new"
    shutil.copytree(shared / "golden" / "tok_sp", folder)
    file = folder / "tokenizer_config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"legacy": False, "add_prefix_space": False})
    )
    tokenizer = load_tokenizer(path=str(folder))
    ids = tokenizer.encode("a photo of a cat<img></img>\n", add_special_tokens=False)
    assert ids == [343, 274, 315, 330, 294, 259, 290, 266, 726, 727, 13]


def test_a_model_that_cannot_be_read_exactly_is_refused(library, shared, tmp_path, monkeypatch):
    shutil.copy(shared / "golden" / "tok_sp" / "tokenizer.model", tmp_path)
    monkeypatch.setattr(
        sentencepiece_model, "mark_spaces", lambda backend, *, legacy, at_start: backend
    )
    with pytest.raises(ConfigError, match=r"cannot be read exactly.*should be the ids"):
        load_tokenizer(path=str(tmp_path))
