"""Distort pictures a little in training: rotation, shear, scale and shift in one affine step."""

from __future__ import annotations

import math
import random
import zlib

from PIL import Image

from mllm_npu.errors import ConfigError


class AffineAugment:
    """Gives a picture in a slightly different form; a callable ``(picture, rng) -> picture``.

    With ``num_variants`` a picture has only that many forms: the rng draws a number, 0 is the
    picture itself, and every other form follows from the pixels and the number alone. So features
    of the few forms can be computed once and kept.

    Args:
        rotation: largest angle either way, in degrees.
        shear: largest slant of the vertical either way, in degrees.
        scale: largest change of size either way, as a share; 0.1 is 0.9 to 1.1.
        shift: largest move either way, as a share of width and of height.
        num_variants: number of forms of a picture, the unchanged one among them; None: no limit.

    Raises:
        ConfigError: A strength is out of range, or there would be no form.
    """

    def __init__(
        self,
        *,
        rotation: float = 0.0,
        shear: float = 0.0,
        scale: float = 0.0,
        shift: float = 0.0,
        num_variants: int | None = None,
    ) -> None:
        limits = {"rotation": (rotation, 180.0), "shear": (shear, 60.0)}
        limits |= {"scale": (scale, 0.9), "shift": (shift, 1.0)}
        for name, (strength, limit) in limits.items():
            if not 0 <= strength <= limit:
                raise ConfigError(
                    f"{name}={strength} was asked for. Give a number from 0 to {limit}."
                )
        if num_variants is not None and num_variants < 1:
            raise ConfigError(
                f"num_variants={num_variants} was asked for. Give 1 or more, or null for no limit."
            )
        self.rotation = rotation
        self.shear = shear
        self.scale = scale
        self.shift = shift
        self.num_variants = num_variants

    def __call__(self, picture: Image.Image, rng: random.Random) -> Image.Image:
        """One form of the picture, of the same size; the corner's colour fills what was outside.

        Args:
            picture: an RGB picture; it is not changed.
            rng: decides which form.
        """
        if self.num_variants is None:
            return self._distort(picture, rng)
        variant = rng.randrange(self.num_variants)
        if variant == 0:
            return picture
        # A checksum, not hash(): the form must be the same in every process.
        seed = zlib.crc32(picture.tobytes()) * self.num_variants + variant
        return self._distort(picture, random.Random(seed))

    def _distort(self, picture: Image.Image, rng: random.Random) -> Image.Image:
        angle = math.radians(rng.uniform(-self.rotation, self.rotation))
        slant = math.tan(math.radians(rng.uniform(-self.shear, self.shear)))
        size = 1.0 + rng.uniform(-self.scale, self.scale)
        across = rng.uniform(-self.shift, self.shift) * picture.width
        down = rng.uniform(-self.shift, self.shift) * picture.height
        cos, sin = math.cos(angle), math.sin(angle)
        # Pillow wants the way back, from a place in the result to one in the picture:
        # undo the shift, then the rotation, then the slant, then the size, about the centre.
        a, b = (cos + slant * sin) / size, (sin - slant * cos) / size
        d, e = -sin / size, cos / size
        middle_x, middle_y = picture.width / 2, picture.height / 2
        from_x, from_y = middle_x + across, middle_y + down
        c = middle_x - a * from_x - b * from_y
        f = middle_y - d * from_x - e * from_y
        return picture.transform(
            picture.size,
            Image.Transform.AFFINE,
            (a, b, c, d, e, f),
            resample=Image.Resampling.BICUBIC,
            fillcolor=picture.getpixel((0, 0)),
        )
