"""Files of one key become a row that training finds its way in."""

import json
from random import Random

import pytest

from mllm_npu.data.convert.loose_row import build_row, is_pickle_file, is_picture_file
from mllm_npu.data.tasks.caption import Caption
from mllm_npu.errors import SkipSample


def dump(**values):
    return json.dumps(values).encode()


def build(contents, **options):
    return dict(build_row("k", list(contents.items()), **options).members)


def test_pictures_get_the_extension_of_their_bytes(picture):
    jpeg, png = picture(), picture("PNG")
    assert build({"img": jpeg, "txt": b"a"}) == {"jpg": jpeg, "txt": b"a"}
    assert list(build({"jpg": png, "txt": b"a"})) == ["png", "txt"]
    assert list(build({"source.img": jpeg, "target.jpeg": png})) == ["source.jpg", "target.png"]
    assert list(build({"jpeg": jpeg, "image": jpeg})) == ["jpg", "image.jpg"]
    assert list(build({"bmp": picture("BMP")})) == ["png"]


def test_several_pictures_are_kept_and_references_follow(picture):
    values = {
        "parts": [{"text": "0.png"}, {"image": "0.png"}, {"image": "1.jpg", "draw": True}],
        "source": "0.png",
    }
    members = build({"0.png": picture(), "1.jpg": picture(), "json": dump(**values)})
    assert list(members) == ["0.jpg", "1.jpg", "json"]
    assert json.loads(members["json"]) == {
        "parts": [{"text": "0.png"}, {"image": "0.jpg"}, {"image": "1.jpg", "draw": True}],
        "source": "0.jpg",
    }


def test_a_json_that_needs_no_change_keeps_its_bytes(picture):
    data = b'{"caption":  "a cat", "similarity": 0.5}'
    assert build({"jpg": picture(), "json": data})["json"] is data


@pytest.mark.parametrize("values", [{"url": "x", "score": 0.3}, {"caption": "", "score": 0.3}])
def test_a_text_beside_a_json_goes_into_it(picture, values):
    members = build({"jpg": picture(), "txt": b" a cat ", "json": dump(**values)})
    assert list(members) == ["jpg", "json"]
    assert json.loads(members["json"]) == {**values, "caption": "a cat"}
    row = build_row("k", list(members.items()))
    assert Caption().to_conversation(row, Random(0)).task == "caption"


def test_a_class_becomes_a_caption_where_there_is_no_other(picture):
    names = ("cat", "dog")
    assert build({"jpg": picture(), "cls": b"1\n"}, class_names=names)["txt"] == b"dog"
    assert build({"jpg": picture(), "cls": b"1"})["txt"] == b"1"
    assert build({"jpg": picture(), "cls": b"wolf"}, class_names=names)["txt"] == b"wolf"
    kept = build({"jpg": picture(), "cls": b"1", "txt": b"a dog"}, class_names=names)
    assert (kept["txt"], kept["cls"]) == (b"a dog", b"1")
    kept = build({"jpg": picture(), "cls": b"1", "json": dump(caption="a dog")})
    assert json.loads(kept["json"]) == {"caption": "a dog"}
    merged = build({"jpg": picture(), "cls": b"1", "json": dump(url="x")}, class_names=names)
    assert json.loads(merged["json"]) == {"url": "x", "caption": "dog"}
    with pytest.raises(SkipSample, match="class has no name: 2"):
        build({"jpg": picture(), "cls": b"2"}, class_names=names)


def test_what_stands_alone_needs_no_picture():
    for values in ({"text": "x"}, {"messages": [1]}, {"parts": [1]}):
        assert build({"json": dump(**values)}) == {"json": dump(**values)}


def test_other_files_are_kept(picture):
    assert list(build({"jpg": picture(), "mask.npy": b"x"})) == ["jpg", "mask.npy"]


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ({"txt": b"a cat"}, "picture missing"),
        ({"json": dump(caption="orphan")}, "picture missing"),
        ({"mp4": b"x"}, "picture missing"),
        ({"jpg": b"not a jpeg", "txt": b"a"}, "not a picture"),
        ({"jpg": None, "txt": b""}, "caption empty"),
        ({"jpg": None, "txt": b"\xff"}, "text is not UTF-8"),
        ({"jpg": None, "cls": b" "}, "class empty"),
        ({"jpg": None, "json": b"{bad"}, "json broken"),
        ({"jpg": None, "json": b"[" * 99_999}, "json broken"),
        ({"jpg": None, "json": b"[1]"}, "json is not an object"),
        ({"jpg": None, "json": dump(caption=" ")}, "caption empty"),
        ({"jpg": None, "json": dump(caption=[])}, "caption empty"),
        ({"jpg": None, "pyd": b"x"}, "pickle in the row: pyd"),
        ({"jpg": None, "latents.pth": b"x"}, "pickle in the row"),
    ],
)
def test_broken_rows_are_refused(picture, contents, reason):
    filled = {name: picture() if data is None else data for name, data in contents.items()}
    with pytest.raises(SkipSample, match=reason):
        build(filled)


def test_one_name_twice_is_refused(picture):
    with pytest.raises(SkipSample, match="two files of one name: txt"):
        build_row("k", [("jpg", picture()), ("txt", b"a"), ("txt", b"b")])


def test_files_are_told_by_their_last_ending():
    assert is_picture_file("0.img")
    assert not is_picture_file("img.txt")
    assert is_pickle_file("a.pkl")
    assert not is_pickle_file("pkl.json")
