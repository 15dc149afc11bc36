"""Small tokenizers, processors and rows that the data tests share."""

import io
import json

import fsspec
import numpy as np
import pytest
from PIL import Image

from mllm_npu.data.forms import Form, FormTable
from mllm_npu.data.row import Row
from mllm_npu.data.source import SampleSource
from mllm_npu.data.worlds.digits import make_digits
from mllm_npu.data.worlds.scenes import make_scenes
from mllm_npu.processing.anyres import AnyResolution
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.processing.processor import Processor
from mllm_npu.processing.special_tokens import SpecialTokens, add_special_tokens
from mllm_npu.processing.tokenizer import load_tokenizer, train_tokenizer


def encode_png(width=16, height=16, color=(200, 30, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), color).save(buffer, "PNG")
    return buffer.getvalue()


def build_row(key="row", json_member=None, **members):
    """A row; member names are given with __ for the dot (``0__png``)."""
    contents = {name.lstrip("_").replace("__", "."): value for name, value in members.items()}
    if json_member is not None:
        contents["json"] = json.dumps(json_member).encode()
    return Row(key=key, members=contents)


def build_processor(tokenizer, **changes):
    settings = {
        "tokenizer": tokenizer,
        "any_resolution": AnyResolution(
            grids=["1x1", "2x1", "3x1", "1x2", "6x1"], tile_size=16, repeat_single_tile=False
        ),
        "chat_template": ChatTemplate(user_prefix="user: ", assistant_prefix="assistant: "),
        "num_read_tokens": 4,
        "num_drawn_tokens": 3,
        "max_tokens": 200,
        "picture_size": 16,
    }
    return Processor(**{**settings, **changes})


@pytest.fixture(scope="session")
def png():
    return encode_png


@pytest.fixture(scope="session")
def make_row():
    return build_row


@pytest.fixture(scope="session")
def make_processor():
    return build_processor


@pytest.fixture(scope="session")
def tokenizer():
    texts = ["a red circle at the top left", "which digit is this? seven", "user: assistant: "]
    made = train_tokenizer(texts * 5, vocab_size=320)
    add_special_tokens(made, SpecialTokens(num_slots=4, num_locations=0))
    return made


@pytest.fixture(scope="session")
def processor(tokenizer):
    return build_processor(tokenizer)


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder, scale=0.03)
    return folder


@pytest.fixture(scope="session")
def digits_processor(digits_folder):
    return build_processor(load_tokenizer(path=str(digits_folder / "tokenizer")))


@pytest.fixture(scope="session")
def scenes_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    make_scenes(folder, scale=0.01)
    return folder


class CountedSource(SampleSource):
    """A source without files: lengths are given, one form each unless shares are given."""

    def __init__(self, name="set", weight=1.0, shards=((3, 1),), tiles=0, learnt=1):
        """``shards``: for each shard the tokens of its samples."""
        self.name = name
        self.weight = weight
        self.tokens = [list(shard) for shard in shards]
        self.tiles = tiles
        self.learnt = learnt
        self.measured = []

    def __len__(self):
        return sum(map(len, self.tokens))

    @property
    def shard_sizes(self):
        return np.array([len(shard) for shard in self.tokens])

    def row(self, index):
        raise NotImplementedError

    def conversation(self, index, rng, form=None):
        raise NotImplementedError

    def forms(self, shard, processor):
        self.measured.append(shard)
        return FormTable.of(
            [Form(num_text_tokens=n, num_learnt_tokens=self.learnt, num_drawn=self.tiles)]
            for n in self.tokens[shard]
        )

    def totals(self, shard, processor):
        return self.forms(shard, processor).totals()

    def where(self, index):
        return f"{self.name}.tar"

    def fingerprint(self):
        return repr(self.tokens)


@pytest.fixture(scope="session")
def counted_source():
    return CountedSource


@pytest.fixture(autouse=True)
def shard_cache(tmp_path, monkeypatch):
    """No test writes to the user's own cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def shard_folder(tmp_path, monkeypatch):
    """A folder with shards; the working directory."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("0000.tar", "0001.tar", "0002.tar", "a.tar", "b.tar", "note.txt"):
        (folder / name).write_bytes(name.encode())
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def memory_file(request):
    """Writes into a folder in memory of the test's own and gives the URL; gone behind it."""
    files = fsspec.filesystem("memory")
    name = f"/storage-{request.node.name}"
    yield lambda path, data: files.pipe_file(f"{name}/{path}", data) or f"memory:/{name}/{path}"
    files.rm(name, recursive=True)
