"""What one request may hold, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mllm_npu.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one worker; each must be above 0.

    Args:
        max_body_bytes: of a request; a longer one is refused before it is read to its end.
        max_images: pictures in a request.
        max_pixels: width times height of a picture, checked before it is decoded.
        max_text: characters of all texts of a request.
        max_new_tokens: of one reply.
        max_choices: replies to one request (``n``).
        max_image_steps: solver steps of the image decoder.
        max_queue: requests that wait; the next one is refused as busy.
        body_seconds: until the whole request has arrived.
        request_seconds: until the whole reply is made.
        patience_seconds: until a streamed reply begins even though its first piece is not there;
            what goes wrong later is told inside the stream.
    """

    max_body_bytes: int = 32 * 1024 * 1024
    max_images: int = 16
    max_pixels: int = 4096 * 4096
    max_text: int = 400_000
    max_new_tokens: int = 4096
    max_choices: int = 8
    max_image_steps: int = 200
    max_queue: int = 64
    body_seconds: float = 60.0
    request_seconds: float = 900.0
    patience_seconds: float = 1.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ConfigError(f"{field.name}={value} was asked for. Give a number above 0.")
