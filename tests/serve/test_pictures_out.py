"""Drawn pictures for the wire."""

import base64
import io

import pytest
from PIL import Image

from mllm_npu.serve.pictures_out import encode_picture, to_base64, to_data_url


def test_png_keeps_every_value():
    picture = Image.effect_noise((9, 7), 60).convert("RGB")
    opened = Image.open(io.BytesIO(encode_picture(picture)))
    assert opened.tobytes() == picture.tobytes()


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_forms(form):
    picture = Image.new("RGB", (9, 7), "red")
    head, _, packed = to_data_url(picture, form).partition(",")
    assert head == f"data:image/{form};base64"
    assert packed == to_base64(picture, form)
    assert Image.open(io.BytesIO(base64.b64decode(packed))).format == form.upper()
