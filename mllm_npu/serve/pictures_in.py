"""Pictures of a request: base64 and data URLs decoded within limits; addresses only if allowed."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.processing.image_transform import open_picture
from mllm_npu.serve.api_errors import ApiError

Fetch = Callable[[str], bytes]
"""Gets the bytes behind an address, or raises ``ApiError``."""

_LONGEST_HEAD = 200


def refuse_addresses(url: str) -> bytes:
    """What stands for fetching where no host is allowed.

    Raises:
        ApiError: always.
    """
    raise ApiError(
        "A picture was given by its address, this server fetches none. Send it as a data URL "
        "(data:image/png;base64,...), or start the server with --allow-image-host.",
        param="image_url",
        code="image_url_refused",
    )


class PictureReader:
    """Opens the pictures of requests.

    Args:
        max_pixels: of one picture, checked before it is decoded.
        fetch: gets what stands behind an https address.
    """

    def __init__(self, *, max_pixels: int, fetch: Fetch = refuse_addresses) -> None:
        self.max_pixels = max_pixels
        self.fetch = fetch

    def from_url(self, url: str) -> Image.Image:
        """Open a data URL, or an address where those are allowed.

        Raises:
            ApiError: it is neither, it is no picture, or it is too large.
        """
        kind = url[:5].lower()
        if kind == "data:":
            return self.from_bytes(_data_of(url))
        if kind in ("http:", "https"):
            return self.from_bytes(self.fetch(url))
        raise ApiError(
            "image_url must be a data URL (data:image/png;base64,...).",
            param="image_url",
            code="invalid_image_url",
        )

    def from_base64(self, text: str) -> Image.Image:
        """Open base64, with or without the head of a data URL.

        Raises:
            ApiError: it is no base64, no picture, or too large.
        """
        if text[:5].lower() == "data:":
            return self.from_bytes(_data_of(text))
        return self.from_bytes(decode_base64(text))

    def from_bytes(self, data: bytes) -> Image.Image:
        """Open an encoded picture.

        Raises:
            ApiError: it is no picture, or too large.
        """
        try:
            return open_picture(data, max_pixels=self.max_pixels)
        except DataError as error:
            raise ApiError(str(error), param="image", code="invalid_image") from error


def decode_base64(text: str) -> bytes:
    """Bytes of base64 in either alphabet, white space and missing padding forgiven.

    Raises:
        ApiError: it is no base64.
    """
    packed = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(
            f"The picture is no base64 ({error}). Encode the bytes of a picture file.",
            param="image",
            code="invalid_base64",
        ) from error


def _data_of(url: str) -> bytes:
    head, comma, data = url.partition(",")
    kind = head[len("data:") :].lower()
    if not comma or len(head) > _LONGEST_HEAD or not kind.endswith(";base64"):
        raise ApiError(
            "A data URL must read data:image/png;base64, and then the encoded picture.",
            param="image_url",
            code="invalid_image_url",
        )
    if not kind.startswith("image/") and not kind.startswith("application/octet-stream"):
        raise ApiError(
            "A data URL of an image is wanted, this one says it is something else. "
            "Use image/png, image/jpeg or image/webp.",
            param="image_url",
            code="invalid_image_url",
        )
    return decode_base64(data)
