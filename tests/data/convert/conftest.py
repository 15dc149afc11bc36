"""What the tests of conversion share: encoded pictures, tars and JSON lines of others."""

import io
import json
import tarfile

import pytest
from PIL import Image

from mllm_npu.data.convert.picture_source import PictureSource
from mllm_npu.data.index import read_rows


def encode(kind="JPEG", color=(200, 30, 30), size=(6, 5)):
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, kind)
    return buffer.getvalue()


def write_tar(path, members):
    """A tar as others make it: any names in any order, with a folder entry at its end."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        folder = tarfile.TarInfo("notes")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    return path


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def read_output(out):
    """All converted rows by key, in order."""
    return {row.key: row for path in sorted(out.glob("*.tar")) for row in read_rows(path)}


@pytest.fixture(scope="session")
def picture():
    return encode


@pytest.fixture(scope="session")
def make_tar():
    return write_tar


@pytest.fixture(scope="session")
def make_lines():
    return write_lines


@pytest.fixture(scope="session")
def output():
    return read_output


@pytest.fixture
def album(tmp_path):
    """A folder with the pictures a.jpg (red), b.png (green) and c.webp (blue)."""
    folder = tmp_path / "album"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(encode("JPEG"))
    (folder / "b.png").write_bytes(encode("PNG", (30, 200, 30)))
    (folder / "c.webp").write_bytes(encode("WEBP", (30, 30, 200)))
    return folder


@pytest.fixture
def pictures(album):
    return PictureSource(folder=album)
