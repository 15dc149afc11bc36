"""Fetch pictures by address, from hosts a person has allowed, and from public addresses only."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from urllib.parse import SplitResult, urljoin, urlsplit

from mllm_npu.serve.api_errors import ApiError

MAX_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 64 * 1024

Connect = Callable[[str, int, float], http.client.HTTPConnection]
"""Host, port, seconds -> a connection that is not open yet."""


class PublicConnection(http.client.HTTPSConnection):
    """HTTPS to a public address: what the name means is checked, and that very address is used."""

    def connect(self) -> None:
        """Open the connection.

        Raises:
            ApiError: the name means an address of a private range.
        """
        address = public_address(self.host, self.port)
        plain = socket.create_connection(address, timeout=self.timeout)
        self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)


class RemotePictures:
    """Gets what stands behind https addresses of allowed hosts; redirects are checked alike.

    Args:
        hosts: names that are allowed, exactly; ``*.example.org`` allows every host below it.
        max_bytes: of a picture file.
        seconds: for a fetch in all.
        connect: makes a connection.
    """

    def __init__(
        self,
        *,
        hosts: Iterable[str],
        max_bytes: int,
        seconds: float = 10.0,
        connect: Connect = lambda host, port, seconds: PublicConnection(
            host, port, timeout=seconds
        ),
    ) -> None:
        self.hosts = tuple(host.lower().rstrip(".") for host in hosts)
        self.max_bytes = max_bytes
        self.seconds = seconds
        self.connect = connect

    def __call__(self, url: str) -> bytes:
        """The bytes behind an address.

        Raises:
            ApiError: it is not allowed, does not answer, or is too large.
        """
        deadline = time.monotonic() + self.seconds
        for _ in range(MAX_REDIRECTS + 1):
            place = self._check(url)
            try:
                found = self._get(place, deadline)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise _refuse(f"{place.hostname} did not give a picture.") from error
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
        raise _refuse(f"The address leads on more than {MAX_REDIRECTS} times.")

    def _check(self, url: str) -> SplitResult:
        try:
            place = urlsplit(url)
            port = place.port
        except ValueError as error:
            raise _refuse("The address cannot be read.") from error
        host = (place.hostname or "").rstrip(".")
        if place.scheme != "https" or place.username or place.password or port not in (None, 443):
            raise _refuse("Pictures are fetched by https without name, password or port.")
        if not host.isascii() or not any(_matches(host, allowed) for allowed in self.hosts):
            raise _refuse("Pictures of this host are not fetched. Send a data URL instead.")
        return place

    def _get(self, place: SplitResult, deadline: float) -> bytes | str:
        """The bytes, or the address it leads on to."""
        host = place.hostname or ""
        connection = self.connect(host, 443, max(0.1, deadline - time.monotonic()))
        try:
            path = (place.path or "/") + (f"?{place.query}" if place.query else "")
            connection.request("GET", path, headers={"accept": "image/*"})
            reply = connection.getresponse()
            if reply.status in _REDIRECTS:
                return reply.getheader("location") or ""
            if reply.status != http.client.OK:
                raise _refuse(f"{host} answered {reply.status}.")
            return self._read(reply, deadline)
        finally:
            connection.close()

    def _read(self, reply: http.client.HTTPResponse, deadline: float) -> bytes:
        pieces: list[bytes] = []
        taken = 0
        while piece := reply.read1(_CHUNK):
            taken += len(piece)
            if taken > self.max_bytes:
                raise _refuse(f"The picture has more than {self.max_bytes} bytes.")
            if time.monotonic() > deadline:
                raise _refuse(f"The picture did not arrive within {self.seconds:g} seconds.")
            pieces.append(piece)
        return b"".join(pieces)


def public_address(host: str, port: int) -> tuple[str, int]:
    """The first address of a host, if all of them are public.

    Raises:
        ApiError: one is of this machine, of a private network, or otherwise special.
        OSError: the name is not known.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(is_public(address) for address in addresses):
        raise _refuse(f"{host} is not on the public network.")
    return addresses[0], port


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public network; IPv4 inside IPv6 is looked at too."""
    number = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(number, ipaddress.IPv6Address):
        inner = number.ipv4_mapped or number.sixtofour
        if number.teredo is not None or (inner is not None and not inner.is_global):
            return False
    return number.is_global and not number.is_multicast


def _matches(host: str, allowed: str) -> bool:
    if allowed.startswith("*."):
        return host.endswith(allowed[1:])
    return host == allowed


def _refuse(reason: str) -> ApiError:
    return ApiError(reason, param="image_url", code="image_url_refused")
