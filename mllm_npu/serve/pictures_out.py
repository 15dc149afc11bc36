"""Drawn pictures for the wire: encoded, as base64 and as data URLs."""

from __future__ import annotations

import base64
import io
from typing import Literal

from PIL import Image

PictureFormat = Literal["png", "jpeg", "webp"]


def encode_picture(picture: Image.Image, form: PictureFormat = "png") -> bytes:
    """The bytes of a picture file; PNG keeps every value."""
    stream = io.BytesIO()
    if form == "png":
        picture.save(stream, format="PNG", compress_level=3)
    else:
        picture.save(stream, format=form.upper(), quality=95)
    return stream.getvalue()


def to_base64(picture: Image.Image, form: PictureFormat = "png") -> str:
    """Base64 of a picture file."""
    return base64.b64encode(encode_picture(picture, form)).decode("ascii")


def to_data_url(picture: Image.Image, form: PictureFormat = "png") -> str:
    """A picture as an address that holds it."""
    return f"data:image/{form};base64,{to_base64(picture, form)}"
