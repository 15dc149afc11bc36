"""Fixtures of the processing tests: a small tokenizer, a processor, and the recorded vectors."""

import json
from functools import cache
from pathlib import Path

import pytest
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import RAW
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import load_tokenizer, train_tokenizer

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden"
TEXTS = ["a photo of a cat", "which digit is this? draw a 7.", "seven plus two is nine"] * 5


@pytest.fixture(scope="session")
def golden():
    def read(name):
        file = GOLDEN / name
        if not file.is_file():
            pytest.skip(f"{file} is absent: the recorded vectors are not part of the project")
        return json.loads(file.read_text())

    return read


@pytest.fixture(scope="session")
def golden_tokenizer():
    """Tokenizers of the recorded layouts by name: bpe, sp_legacy, sp_nonlegacy."""

    @cache
    def load(name):
        if not GOLDEN.is_dir():
            pytest.skip(f"{GOLDEN} is absent: the recorded tokenizers are not part of the project")
        if name == "bpe":
            return load_tokenizer(path=str(GOLDEN / "tok_bpe"))
        return _load_sentencepiece(GOLDEN / "tok_sp", legacy=name == "sp_legacy")

    return load


def _load_sentencepiece(folder, *, legacy):
    """Rebuild a Llama tokenizer from its model file without the sentencepiece library."""
    protobuf = pytest.importorskip(
        "transformers.utils.sentencepiece_model_pb2_new", reason="protobuf is not installed"
    )
    proto = protobuf.ModelProto()
    proto.ParseFromString((folder / "tokenizer.model").read_bytes())
    scores = {piece.piece: piece.score for piece in proto.pieces if piece.type == piece.NORMAL}
    vocabulary = {piece.piece: number for number, piece in enumerate(proto.pieces)}
    pairs = {(word[:cut], word[cut:]) for word in scores for cut in range(1, len(word))}
    merges = [pair for pair in pairs if pair[0] in scores and pair[1] in scores]
    merges.sort(key=lambda pair: (-scores["".join(pair)], vocabulary["".join(pair)], pair))
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    backend = Tokenizer(model)
    space = normalizers.Replace(" ", "▁")
    prepend = [normalizers.Prepend("▁")] if legacy else []
    backend.normalizer = normalizers.Sequence([*prepend, space])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )
    added = json.loads((folder / "added_tokens.json").read_text())
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in sorted(added, key=added.get)])
    assert tokenizer.convert_tokens_to_ids("</patch>") == added["</patch>"]
    return tokenizer


@pytest.fixture
def tokenizer():
    trained = train_tokenizer(TEXTS, vocab_size=300)
    add_special_tokens(trained, SpecialTokens(num_slots=8, num_locations=0))
    return trained


@pytest.fixture
def make_processor(tokenizer):
    def make(**changes):
        parts = {
            "tokenizer": tokenizer,
            "any_resolution": AnyResolution(
                grids=["1x1", "2x1", "3x1"], tile_size=8, repeat_single_tile=False
            ),
            "chat_template": RAW,
            "num_read_tokens": 4,
            "num_drawn_tokens": 6,
            "max_tokens": 200,
        }
        return Processor(**{**parts, **changes})

    return make


@pytest.fixture
def picture():
    """A picture of any size with a different colour at every place."""

    def paint(width=8, height=8):
        image = Image.new("RGB", (width, height))
        image.putdata(
            [
                (x * 7 % 256, y * 11 % 256, (x + y) % 256)
                for y in range(height)
                for x in range(width)
            ]
        )
        return image

    return paint
