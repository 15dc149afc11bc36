import io

import numpy as np
import pytest
import torch
from PIL import Image

from mllm_npu.train.trackers.png import encode_png


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 8), (64, 5)])
def test_every_pixel_comes_back(height, width):
    picture = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    with Image.open(io.BytesIO(encode_png(picture))) as read_back:
        read_back.verify()
    with Image.open(io.BytesIO(encode_png(picture))) as read_back:
        assert (read_back.format, read_back.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(read_back), picture.permute(1, 2, 0).numpy())


def test_a_view_is_as_good_as_a_picture_of_its_own():
    pictures = torch.randint(0, 256, (2, 6, 6, 3), dtype=torch.uint8)
    view = pictures[1, ::2].permute(2, 0, 1)
    with Image.open(io.BytesIO(encode_png(view))) as read_back:
        assert np.array_equal(np.asarray(read_back), pictures[1, ::2].numpy())
