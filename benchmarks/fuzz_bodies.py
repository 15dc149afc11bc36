"""Bodies that no client should send: broken JSON, base64, pictures, forms; from a seed."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

CHAT, DRAW = "/v1/chat/completions", "/v1/images/generations"
EDIT, ORIGINAL = "/v1/images/edits", "/worker_generate"
JSON_TYPE = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request.

    Args:
        path: where it goes.
        body: its bytes.
        headers: beside those that every request has.
        raw: sent as it is, past any HTTP client.
    """

    path: str = CHAT
    body: bytes = b""
    headers: Mapping[str, str]
    raw: bool = False


def make_request(rng: random.Random) -> Asked:
    """The next malformed request."""
    kind = rng.choice((_bytes, _cut_json, _odd_value, _odd_value, _picture, _picture, _form, _raw))
    return kind(rng)


def _valid(rng: random.Random) -> tuple[str, dict[str, Any]]:
    message = {"role": "user", "content": [{"type": "text", "text": "draw a seven"}]}
    chat = {"model": "tiny", "messages": [message], "max_tokens": 2, "temperature": 0.5}
    draw = {"prompt": "draw a seven", "n": 1, "image_steps": 1, "size": "16x16"}
    original = {"input_text": "draw a seven", "image": "", "image_gen": False, "max_new_tokens": 2}
    return rng.choice(((CHAT, chat), (DRAW, draw), (ORIGINAL, original)))


def _json(path: str, value: Any) -> Asked:
    return Asked(path=path, body=json.dumps(value).encode(), headers={"content-type": JSON_TYPE})


def _bytes(rng: random.Random) -> Asked:
    body = rng.randbytes(rng.randrange(400))
    kinds = (JSON_TYPE, "text/plain", "multipart/form-data", "x", "application/json; charset=x")
    headers = {"content-type": rng.choice(kinds)}
    return Asked(path=rng.choice((CHAT, DRAW, EDIT, ORIGINAL)), body=body, headers=headers)


def _cut_json(rng: random.Random) -> Asked:
    path, value = _valid(rng)
    body = json.dumps(value).encode()
    place = rng.randrange(len(body))
    noise = rng.choice(
        (b"", rng.randbytes(3), b"\x00", b"[" * 5000, b'"\\ud800"', b"NaN", b"1e999")
    )
    broken = body[:place] + noise + (body[place:] if rng.random() < 0.5 else b"")
    return Asked(path=path, body=broken, headers={"content-type": JSON_TYPE})


def _odd_value(rng: random.Random) -> Asked:
    path, value = _valid(rng)
    holder: Any = value
    key: Any = rng.choice(list(value))
    while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.7:
        holder = holder[key]
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    holder[key] = _odd(rng)
    if rng.random() < 0.2:
        value[rng.choice(("stop", "seed", "n", "stream", "images", "\ud800", "é" * 99))] = _odd(rng)
    return _json(path, value)


def _odd(rng: random.Random) -> Any:
    deep: Any = []
    for _ in range(rng.choice((1, 50, 400))):
        deep = [deep]
    return rng.choice(
        (
            *(None, True, -1, 0, 2**31, 2**63, 2**64, 10**400, 1.5, float("nan"), float("inf")),
            *("", " ", "\0", "\ud800", "\udfff x", "é" * 3000, "<img></img>", "<img_00000>" * 9),
            *([], {}, [None], {"": ""}, {"type": "text"}, {"type": "image_url"}, deep, [[[]]] * 99),
        )
    )


def _picture(rng: random.Random) -> Asked:
    data = rng.choice(_PICTURES)(rng)
    text = base64.b64encode(data).decode()
    if rng.random() < 0.4:
        place = rng.randrange(len(text) + 1)
        text = text[:place] + rng.choice(("", "*", "é", "=", "\n", "\0", "====", "\ud800"))
    kind = rng.choice(("image/png", "image/jpeg", "image/x", "text/html", "", "image/svg+xml"))
    url = rng.choice(
        (f"data:{kind};base64,{text}", f"data:{kind},{text}", text, *_ADDRESSES)
        if rng.random() < 0.5
        else (f"data:image/png;base64,{text}",)
    )
    if rng.random() < 0.3:
        return _json(ORIGINAL, {"input_text": "which?", "image": text, "max_new_tokens": 1})
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "which?"}]
    role = rng.choice(("user", "assistant", "system"))
    messages = [{"role": role, "content": parts}, {"role": "user", "content": "which?"}]
    return _json(CHAT, {"model": "tiny", "messages": messages, "max_tokens": 1})


_ADDRESSES = (
    "http://127.0.0.1/a.png",
    "https://169.254.169.254/latest",
    "file:///etc/passwd",
    "https://[::1",
    "data:",
    "javascript:1",
)


def _png(rng: random.Random) -> bytes:
    stream = io.BytesIO()
    mode = rng.choice(("RGB", "L", "P", "1", "RGBA", "LA", "I;16"))
    Image.new(mode, (rng.randrange(1, 9), rng.randrange(1, 9))).save(stream, format="PNG")
    return stream.getvalue()


def _jpeg(rng: random.Random) -> bytes:
    stream = io.BytesIO()
    Image.new(rng.choice(("RGB", "L", "CMYK")), (9, 9)).save(stream, format="JPEG")
    return stream.getvalue()


def _cut(make: Callable[[random.Random], bytes]) -> Callable[[random.Random], bytes]:
    def cut(rng: random.Random) -> bytes:
        data = make(rng)
        return data[: rng.randrange(len(data))]

    return cut


def _bitten(make: Callable[[random.Random], bytes]) -> Callable[[random.Random], bytes]:
    def bitten(rng: random.Random) -> bytes:
        data = bytearray(make(rng))
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data)

    return bitten


def _bomb(rng: random.Random) -> bytes:
    """A PNG of few bytes that says it has very many pixels."""
    edge = rng.choice((5_000, 60_000, 2**31 - 1))
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(200_000))),
        (b"IEND", b""),
    )
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


def _other_file(rng: random.Random) -> bytes:
    return rng.choice(
        (
            b"",
            b"GIF89a",
            b"%PDF-1.7",
            b"<svg xmlns='x'/>",
            b"PK\x03\x04",
            b"%!PS",
            rng.randbytes(99),
        )
    )


_PICTURES = (
    *(_png, _jpeg, _cut(_png), _cut(_jpeg), _bitten(_png), _bitten(_jpeg)),
    *(_bomb, _other_file),
)


def _form(rng: random.Random) -> Asked:
    edge = rng.choice(("x", "xyz", "", "é", "x" * 200))
    name = rng.choice(("image", "image[]", "mask", "", "é", "prompt"))
    picture = rng.choice(_PICTURES)(rng)
    pieces = [
        b"--x\r\n",
        b'Content-Disposition: form-data; name="prompt"\r\n\r\ndraw a seven\r\n',
        b"--x\r\n",
        f'Content-Disposition: form-data; name="{name}"; filename="a.png"\r\n'.encode(),
        b"Content-Type: image/png\r\n\r\n" + picture + b"\r\n",
        b'--x\r\nContent-Disposition: form-data; name="image_steps"\r\n\r\n1\r\n',
        b"--x--\r\n",
    ]
    if rng.random() < 0.6:
        del pieces[rng.randrange(len(pieces))]
    if rng.random() < 0.3:
        pieces.insert(rng.randrange(len(pieces)), rng.randbytes(20))
    kind = f"multipart/form-data; boundary={edge}".encode("utf-8", "replace").decode("latin-1")
    return Asked(path=EDIT, body=b"".join(pieces), headers={"content-type": kind})


def _raw(rng: random.Random) -> Asked:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\n".encode()
    body = rng.choice(
        (
            head + b"content-length: 5\r\ncontent-type: application/json\r\n\r\n{}{}{}",
            head + b"content-length: -1\r\n\r\n{}",
            head + b"content-length: 99999999999999999999999\r\n\r\n",
            head + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
            head + b"transfer-encoding: chunked\r\n\r\n5\r\n{}\r\n",
            head + b"x: \xff\xfe\r\ncontent-length: 2\r\n\r\n{}",
            b"GET / HTTP/9.9\r\n\r\n",
            rng.randbytes(60) + b"\r\n\r\n",
            b"POST /" + b"a" * 9000 + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
            b"GET /v1/models/%ff%00%2e%2e HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
    )
    return Asked(body=body, headers={}, raw=True)
