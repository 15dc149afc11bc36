"""Pictures by address: allowed hosts, public addresses, limits; against a server on loopback."""

import http.client
import http.server
import threading
import time

import pytest

from mllm_npu.serve.api_errors import ApiError
from mllm_npu.serve.remote_pictures import (
    PublicConnection,
    RemotePictures,
    is_public,
    public_address,
)


class Host(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        places = {
            "/on": "/picture",
            "/out": "https://elsewhere.example/picture",
            "/inside": "https://127.0.0.1/picture",
            "/plain": "http://pictures.example/picture",
            "/round": "/round",
        }
        if self.path in places:
            self.send_response(302)
            self.send_header("location", places[self.path])
            self.send_header("content-length", "0")
            self.end_headers()
            return
        body = {"/picture": b"pixels", "/large": b"x" * 5000}.get(self.path.partition("?")[0])
        self.send_response(200 if body or self.path == "/slow" else 404)
        self.send_header("content-length", "50" if self.path == "/slow" else str(len(body or b"")))
        self.end_headers()
        if self.path == "/slow":
            for _ in range(20):
                self.wfile.write(b"x")
                time.sleep(0.05)
        self.wfile.write(body or b"")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def fetch():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield RemotePictures(
        hosts=["pictures.example", "*.pictures.example"],
        max_bytes=1000,
        seconds=0.4,
        connect=lambda host, port, seconds: http.client.HTTPConnection(
            "127.0.0.1", server.server_port, timeout=seconds
        ),
    )
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.mark.parametrize(
    "url",
    [
        "https://pictures.example/picture",
        "https://PICTURES.example:443/picture?a=b",
        "https://a.pictures.example/on",
    ],
)
def test_a_picture(fetch, url):
    assert fetch(url) == b"pixels"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://pictures.example/picture", "https"),
        ("https://pictures.example:8443/picture", "port"),
        ("https://a:b@pictures.example/picture", "name"),
        ("https://pictures.example.evil.org/picture", "not fetched"),
        ("https://evilpictures.example/picture", "not fetched"),
        ("https://pictures.exаmple/picture", "not fetched"),
        ("https://127.0.0.1/picture", "not fetched"),
        ("https://[::1", "cannot be read"),
        ("https://pictures.example:99999/", "cannot be read"),
        ("https://pictures.example/out", "not fetched"),
        ("https://pictures.example/inside", "not fetched"),
        ("https://pictures.example/plain", "https"),
        ("https://pictures.example/round", "more than 3"),
        ("https://pictures.example/missing", "404"),
        ("https://pictures.example/large", "1000 bytes"),
        ("https://pictures.example/slow", "within 0.4"),
        ("https://pictures.example/a b\r\nc: d", "did not give"),
    ],
)
def test_what_is_refused(fetch, url, words):
    with pytest.raises(ApiError, match=words) as caught:
        fetch(url)
    assert (caught.value.status, caught.value.param) == (400, "image_url")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
    ],
)
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::"])
def test_addresses_that_are(address):
    assert is_public(address)


def test_a_name_of_this_machine_is_refused_before_anything_is_sent():
    with pytest.raises(ApiError, match="public network"):
        public_address("localhost", 443)
    with pytest.raises(ApiError, match="public network"):
        PublicConnection("127.0.0.1", 443, timeout=1).connect()


def test_the_default_connection_checks_addresses():
    with pytest.raises(ApiError, match="public network"):
        RemotePictures(hosts=["localhost"], max_bytes=10)("https://localhost/")
