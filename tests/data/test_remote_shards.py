"""Shards behind HTTP are found, indexed, read and refused as local ones are."""

import multiprocessing
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice

import pytest

from mllm_npu.data import storage
from mllm_npu.data.companions import find_companion
from mllm_npu.data.index import build_index, find_head, find_index, index_shards, read_rows
from mllm_npu.data.loader import PackedBatches
from mllm_npu.data.shards import ShardReader, write_shard
from mllm_npu.data.source import Source
from mllm_npu.data.storage import find_shards, open_shard
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.errors import DataError

pytest.importorskip("aiohttp")

MODIFIED = {"Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}


class Site:
    """What a server on this machine serves, and how well.

    Attributes:
        files: contents by path.
        headers: sent with every file.
        refusals: status by path, instead of the file.
        knows_ranges: whether parts of a file can be asked for.
        tells_size: whether a file's length is sent.
        cuts: whether the connection ends in the middle of a file.
        requests: method, path and range of each so far.
    """

    def __init__(self):
        self.files = {}
        self.headers = {}
        self.refusals = {}
        self.knows_ranges = self.tells_size = True
        self.cuts = False
        self.requests = []


class Handler(BaseHTTPRequestHandler):
    """Serves ``site``, an attribute of the subclass made for it."""

    timeout = 5

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        site, path = self.site, self.path.partition("?")[0]
        asked = self.headers.get("Range")
        site.requests.append((self.command, path, asked))
        data = site.files.get(path)
        if path in site.refusals or data is None:
            self.send_error(site.refusals.get(path, 404))
            return
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", asked or "") if site.knows_ranges else None
        part = data[int(span[1]) : int(span[2]) + 1] if span else data
        self.send_response(206 if span else 200)
        for name, value in site.headers.items():
            self.send_header(name, value)
        if site.tells_size:
            self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if body:
            self.wfile.write(part[: len(part) // 2] if site.cuts else part)


@contextmanager
def serve(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"site": site}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()


@pytest.fixture
def site():
    return Site()


@pytest.fixture
def url(site):
    with serve(site) as address:
        yield address


@pytest.fixture
def pack(tmp_path, make_row, png):
    """Bytes of a shard with so many caption rows."""

    def make(count=4, word="red"):
        rows = [
            make_row(f"k{n}", json_member={"caption": f"{word} {n}"}, png=png(16 + n, 16))
            for n in range(count)
        ]
        write_shard(tmp_path / "made.tar", rows)
        return (tmp_path / "made.tar").read_bytes()

    return make


def test_a_shard_behind_http_is_indexed_and_read_as_a_local_one(site, url, pack, tmp_path):
    site.files["/a.tar"] = pack()
    local = build_index(tmp_path / "made.tar")
    index = find_index(f"{url}/a.tar")
    assert index.path == f"{url}/a.tar"
    for name in ("offset", "num_bytes", "num_pictures", "width", "height", "num_text_chars"):
        assert (getattr(index, name) == getattr(local, name)).all()
    assert list(read_rows(f"{url}/a.tar")) == list(read_rows(tmp_path / "made.tar"))


def test_one_sample_is_fetched_by_one_range(site, url, pack):
    site.files["/a.tar"] = pack()
    index = find_index(f"{url}/a.tar")
    reader = ShardReader(path=f"{url}/a.tar")
    reader.read(0, int(index.num_bytes[0]))
    site.requests.clear()
    begin, count = int(index.offset[2]), int(index.num_bytes[2])
    assert reader.read(begin, count).key == "k2"
    assert site.requests == [("GET", "/a.tar", f"bytes={begin}-{begin + count - 1}")]


def test_a_large_shard_is_walked_in_few_requests(site, url, pack, monkeypatch):
    monkeypatch.setattr(storage, "_READ_AHEAD", 8192)
    site.files["/a.tar"] = pack(30)
    assert len(build_index(f"{url}/a.tar")) == 30
    fetched = [asked for _, path, asked in site.requests if path == "/a.tar" and asked]
    assert len(fetched) <= len(site.files["/a.tar"]) // 4096


def test_the_index_is_kept_and_made_again_when_the_shard_changes(site, url, pack, shard_cache):
    site.files["/a.tar"] = pack(3)
    site.headers["ETag"] = '"one"'
    assert index_shards(f"{url}/a.tar").num_built == 1
    assert find_companion(f"{url}/a.tar", ".index.safetensors").is_relative_to(shard_cache)
    site.requests.clear()
    report = index_shards(f"{url}/{{a,a}}.tar")
    assert (report.num_samples, report.num_built) == (3, 0)
    assert not [asked for *_, asked in site.requests if asked]
    site.files["/a.tar"] = pack(5)
    site.headers["ETag"] = '"two"'
    assert find_head(f"{url}/a.tar").num_samples == 5


@pytest.mark.parametrize("mark", ["ETag", "Last-Modified", "Content-MD5"])
def test_a_change_that_keeps_the_size_is_noticed_by_what_the_server_tells(site, url, pack, mark):
    site.files["/a.tar"] = pack(word="red")
    site.headers[mark] = "first"
    before = open_shard(f"{url}/a.tar").signature()
    assert before == open_shard(f"{url}/a.tar").signature()
    site.headers[mark] = "second"
    assert open_shard(f"{url}/a.tar").signature() != before


def test_an_index_beside_the_shard_saves_the_walk(site, url, pack, tmp_path):
    site.files["/a.tar"] = pack()
    build_index(f"{url}/a.tar")
    made = find_companion(f"{url}/a.tar", ".index.safetensors")
    site.files["/a.tar.index.safetensors"] = made.read_bytes()
    made.unlink()
    site.requests.clear()
    assert find_head(f"{url}/a.tar").num_samples == 4
    assert ("GET", "/a.tar.index.safetensors", None) in site.requests
    assert not [asked for _, path, asked in site.requests if path == "/a.tar" and asked]


def test_a_stale_index_beside_the_shard_is_made_anew(site, url, pack):
    site.files["/a.tar"] = pack(2)
    site.files["/a.tar.index.safetensors"] = b"of another state"
    assert find_head(f"{url}/a.tar").num_samples == 2
    assert len(find_index(f"{url}/a.tar")) == 2


def test_brace_lists_and_missing_shards(site, url):
    site.files |= {"/000.tar": b"x", "/001.tar": b"x"}
    assert find_shards(f"{url}/{{000..001}}.tar") == [f"{url}/000.tar", f"{url}/001.tar"]
    with pytest.raises(DataError, match=r"002\.tar' were asked for, no file matches \(1 of 3"):
        find_shards(f"{url}/{{000..002}}.tar")
    assert find_shards(f"{url}/000.tar?signed=1") == [f"{url}/000.tar?signed=1"]


def test_a_server_without_ranges_is_told_from_one_with(site, url, pack):
    site.files["/a.tar"] = pack()
    site.knows_ranges = False
    reader = ShardReader(path=f"{url}/a.tar")
    with pytest.raises(
        DataError, match=r"512 bytes were asked for, \d+ came.*knows no ranges"
    ) as e:
        reader.read(1024, 512)
    assert "copy the shard here" in str(e.value)


def test_a_walk_over_a_server_without_ranges_is_refused_too(site, url, pack, monkeypatch):
    monkeypatch.setattr(storage, "_READ_AHEAD", 2048)
    site.files["/a.tar"] = pack()
    site.knows_ranges = False
    with pytest.raises(DataError, match="knows no ranges"):
        find_head(f"{url}/a.tar")


def test_a_server_that_tells_no_size_is_refused_every_time(site, url, pack):
    site.files["/a.tar"] = pack()
    site.tells_size = False
    shard = open_shard(f"{url}/a.tar")
    for _ in range(2):
        with pytest.raises(DataError, match="does not tell its size"):
            shard.read(0, 512)
    with pytest.raises(DataError, match="does not tell its size"):
        shard.signature()


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_a_server_that_refuses_is_one_message(site, url, pack, status):
    site.files["/a.tar"] = pack()
    reader = ShardReader(path=f"{url}/a.tar")
    reader.read(0, 1024)
    site.refusals["/a.tar"] = status
    with pytest.raises(DataError, match=r"a\.tar cannot be read"):
        reader.read(1024, 1024)
    with pytest.raises(DataError, match=r"a\.tar cannot be read"):
        ShardReader(path=f"{url}/a.tar").read(0, 1024)
    with pytest.raises(DataError, match=r"a\.tar"):
        find_shards(f"{url}/a.tar")
    site.refusals.clear()
    assert reader.read(0, 1024)


def test_a_connection_that_ends_in_the_middle_is_one_message(site, url, pack):
    site.files["/a.tar"] = pack()
    reader = ShardReader(path=f"{url}/a.tar")
    site.cuts = True
    with pytest.raises(DataError, match=r"a\.tar"):
        reader.read(0, 2048)


def test_a_server_that_is_down_is_one_message(site, pack):
    site.files["/a.tar"] = pack()
    with serve(site) as url:
        reader = ShardReader(path=f"{url}/a.tar")
        reader.read(0, 1024)
    for ask in (
        lambda: reader.read(1024, 1024),
        lambda: find_head(f"{url}/a.tar"),
        lambda: find_shards(f"{url}/a.tar"),
    ):
        with pytest.raises(DataError, match=r"a\.tar"):
            ask()


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refused_companion_is_as_none(site, url, pack, status):
    """Object stores answer 403 for what is not there to those who may not list."""
    site.files["/a.tar"] = pack()
    site.refusals["/a.tar.index.safetensors"] = status
    assert find_companion(f"{url}/a.tar", ".index.safetensors") is None
    assert find_head(f"{url}/a.tar").num_samples == 4


def read_in_child(reader, answers):
    try:
        answers.put(reader.read(0, 1024).key)
    except BaseException as error:  # noqa: BLE001 - whatever it is must reach the parent
        answers.put(repr(error))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_reader_in_use_can_be_forked(site, url, pack):
    """As the workers of a loader are, behind forms that were measured in the parent."""
    site.files["/a.tar"] = pack()
    reader = ShardReader(path=f"{url}/a.tar")
    assert reader.read(0, 1024).key == "k0"
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=read_in_child, args=(reader, answers))
    child.start()
    try:
        assert answers.get(timeout=30) == "k0"
    finally:
        child.kill()
        child.join()
    assert reader.read(0, 1024).key == "k0"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_it_feeds_the_loader(site, url, pack, processor, tmp_path, num_workers):
    site.files["/a.tar"] = pack(12)

    def read(shards, workers):
        loader = PackedBatches(
            sources=[Source(name="web", shards=shards, task=Caption(chat=True))],
            processor=processor,
            tokens_per_pack=100,
            seed=0,
            num_workers=workers,
        )
        state = loader.state_dict()
        batches = [batch.input_ids.tolist() for batch in islice(loader, 3)]
        # New workers, behind a parent that has measured the shard meanwhile.
        loader.load_state_dict(state)
        assert [batch.input_ids.tolist() for batch in islice(loader, 3)] == batches
        loader.close()
        assert not loader.skipped
        return batches

    assert read(f"{url}/a.tar", num_workers) == read(str(tmp_path / "made.tar"), 0)
