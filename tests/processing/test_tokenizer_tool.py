"""Extra tokens come behind a tokenizer's own, and everything it could do it still does."""

import dataclasses
import itertools
import json
import shutil

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from mllm_npu.errors import ConfigError
from mllm_npu.processing import tokenizer_tool
from mllm_npu.processing.special_tokens import ImageIds, SpecialTokens, reserved_ids
from mllm_npu.processing.tokenizer import load_tokenizer, train_tokenizer
from mllm_npu.processing.tokenizer_tool import extend_tokenizer

TEXTS = ("A cat, 12 dogs.\n", "Größe 手 🙂", "  two\tspaces ", "")


def grow(atoms: list[str], vocabulary: dict[str, int], size: int) -> list[tuple[str, str]]:
    """Fill a vocabulary with the letters, then with ever longer strings of them; the merges."""
    for atom in atoms:
        vocabulary.setdefault(atom, len(vocabulary))
    merges, longest = [], atoms
    while True:
        grown = []
        for pair in itertools.product(atoms, longest):
            if len(vocabulary) == size:
                return merges
            if "".join(pair) not in vocabulary:
                vocabulary["".join(pair)] = len(vocabulary)
                grown.append("".join(pair))
                merges.append(pair)
        longest = grown


@pytest.fixture(scope="module")
def llama2(tmp_path_factory):
    """Byte fallback, a mark in front of every piece, 32000 entries, no padding."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocabulary |= {f"<0x{number:02X}>": 3 + number for number in range(256)}
    letters = ["▁", *map(chr, range(33, 127))]
    merges = grow(letters, vocabulary, 32000)
    backend = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    folder = tmp_path_factory.mktemp("llama2")
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama3(tmp_path_factory):
    """Bytes, 128000 entries, 256 reserved tokens behind them, neither unknown nor padding."""
    vocabulary: dict[str, int] = {}
    merges = grow(sorted(pre_tokenizers.ByteLevel.alphabet()), vocabulary, 128000)
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    names = ["<|begin_of_text|>", "<|end_of_text|>"]
    names += [f"<|reserved_special_token_{number}|>" for number in range(254)]
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    folder = tmp_path_factory.mktemp("llama3")
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=names[0],
        eos_token=names[1],
        chat_template="{{ messages }}",
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def plain(tmp_path):
    folder = tmp_path / "plain"
    train_tokenizer(["a cat"] * 5, vocab_size=270).save_pretrained(folder)
    return folder


def require_same(source, target) -> None:
    before, after = load_tokenizer(path=str(source)), load_tokenizer(path=str(target))
    assert before.get_vocab().items() <= after.get_vocab().items()
    for text in TEXTS:
        assert before.encode(text) == after.encode(text)
    for text in ("a<img>b<img_00007></img>c", "x<box_start><loc-0><loc-223><box_end>."):
        ids = after.encode(text, add_special_tokens=False)
        assert after.decode(ids).replace(" ", "") == text


def test_llama_2_grows_from_32000_to_32330(llama2, tmp_path):
    report = extend_tokenizer(llama2, tmp_path / "out")
    assert (report.old_size, report.new_size, report.pad_token) == (32000, 32330, "<unk>")
    assert report.ids == {
        "<img_00000>": 32000,
        "<img>": 32100,
        "</img>": 32101,
        "<patch>": 32102,
        "</patch>": 32103,
        "<loc-0>": 32104,
        "<box_start>": 32328,
        "<box_end>": 32329,
    }
    require_same(llama2, tmp_path / "out")
    saved = load_tokenizer(path=str(tmp_path / "out"))
    assert (saved.bos_token_id, saved.eos_token_id, saved.pad_token_id) == (1, 2, 0)
    assert len(saved) == 32330


def test_llama_3_grows_from_128256_to_128587(llama3, tmp_path):
    report = extend_tokenizer(llama3, tmp_path / "out")
    assert (report.old_size, report.new_size, report.pad_token) == (128256, 128587, "<unk>")
    assert report.ids["<unk>"] == 128256
    assert report.ids["<img_00000>"] == 128257
    assert (report.ids["<img>"], report.ids["<loc-0>"]) == (128357, 128361)
    assert report.ids["<box_end>"] == 128586
    require_same(llama3, tmp_path / "out")
    saved = load_tokenizer(path=str(tmp_path / "out"))
    assert saved.pad_token_id == 128256
    assert saved.unk_token is None
    assert saved.chat_template == "{{ messages }}"
    assert 128256 in reserved_ids(saved)


def test_the_order_is_that_of_the_recorded_tokenizer(shared, tmp_path):
    """The recorded folder without its added tokens, extended, has the recorded ids."""
    recorded = shared / "golden" / "tok_bpe"
    described = json.loads((recorded / "tokenizer.json").read_text(encoding="utf-8"))
    wanted = load_tokenizer(path=str(recorded)).get_vocab()
    described["added_tokens"] = [entry for entry in described["added_tokens"] if entry["id"] < 400]
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
    report = extend_tokenizer(tmp_path, tmp_path / "out")
    assert load_tokenizer(path=str(tmp_path / "out")).get_vocab() == wanted
    assert (report.old_size, report.new_size) == (400, 731)


def test_a_sentencepiece_folder_becomes_a_fast_one(shared, tmp_path):
    pytest.importorskip("sentencepiece", reason="the sentencepiece library is not installed")
    shutil.copy(shared / "golden" / "tok_sp" / "tokenizer.model", tmp_path)
    report = extend_tokenizer(tmp_path, tmp_path / "out")
    assert (report.old_size, report.new_size) == (400, 730)
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    require_same(tmp_path, tmp_path / "out")
    saved = load_tokenizer(path=str(tmp_path / "out"))
    assert saved.encode("</img>\n", add_special_tokens=False)[1:] == [341, 13]
    with pytest.raises(ConfigError, match="already has"):
        extend_tokenizer(shared / "golden" / "tok_sp", tmp_path / "again")


def test_numbers_of_slots_and_locations_can_be_chosen(plain, tmp_path):
    report = extend_tokenizer(plain, tmp_path / "out", num_slots=4, num_locations=0)
    assert report.new_size == report.old_size + 8
    assert "<loc-0>" not in report.ids
    assert "<box_start>" not in report.ids
    saved = load_tokenizer(path=str(tmp_path / "out"))
    assert len(ImageIds.of(saved).slots) == 4
    assert saved.pad_token == report.pad_token == "<pad>"


def test_the_report_can_be_written_as_json(plain, tmp_path):
    report = extend_tokenizer(plain, tmp_path / "out")
    assert json.loads(json.dumps(dataclasses.asdict(report)))["new_size"] == report.new_size


def test_tokens_are_added_once(plain, tmp_path):
    extend_tokenizer(plain, tmp_path / "once")
    with pytest.raises(ConfigError, match="already has <img_00000>"):
        extend_tokenizer(tmp_path / "once", tmp_path / "twice")
    assert {path.name for path in tmp_path.iterdir()} == {"plain", "once"}


def test_what_is_there_is_not_overwritten(plain, tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    for place in (target, target / "notes.txt", plain):
        with pytest.raises(ConfigError, match="files are already"):
            extend_tokenizer(plain, place)
    assert [path.name for path in target.iterdir()] == ["notes.txt"]


def test_an_empty_folder_may_be_filled(plain, tmp_path):
    (tmp_path / "out").mkdir()
    extend_tokenizer(plain, tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        extend_tokenizer(tmp_path / "nowhere", tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_named(plain, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        extend_tokenizer(plain, tmp_path / "file" / "out")


def test_tokens_that_text_splits_are_found_out(llama2, tmp_path, monkeypatch):
    """Added so that text is changed before they are looked for, as the original's were."""

    def add_changed(tokenizer, tokens: SpecialTokens) -> None:
        tokenizer.add_tokens([AddedToken(token, normalized=True) for token in tokens.all()])

    monkeypatch.setattr(tokenizer_tool, "add_special_tokens", add_changed)
    with pytest.raises(ConfigError, match="does not come back"):
        extend_tokenizer(llama2, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def swap_two(described: dict) -> None:
    vocabulary = described["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]


def drop_a(described: dict) -> None:
    described["normalizer"] = {"type": "Replace", "pattern": {"String": "a"}, "content": ""}


@pytest.mark.parametrize(
    ("change", "message"),
    [(swap_two, "2 old tokens, '[ab]' among them"), (drop_a, "The text 'The quick .* other ids")],
)
def test_a_tokenizer_that_is_not_the_same_when_read_again_is_found_out(
    plain, tmp_path, monkeypatch, change, message
):
    def load(*, path: str) -> PreTrainedTokenizerFast:
        tokenizer = load_tokenizer(path=path)
        if path != str(plain):
            described = json.loads(tokenizer.backend_tokenizer.to_str())
            change(described)
            tokenizer._tokenizer = Tokenizer.from_str(json.dumps(described))
        return tokenizer

    monkeypatch.setattr(tokenizer_tool, "load_tokenizer", load)
    with pytest.raises(ConfigError, match=message):
        extend_tokenizer(plain, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]
