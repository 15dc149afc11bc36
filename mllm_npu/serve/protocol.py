"""What a worker and its controller say to each other: registration, heartbeat, farewell.

Every call is a POST with the shared token as ``Authorization: Bearer TOKEN`` where one is set. The
controller sends the same token when it passes a request on, so that a worker whose clients need API
keys accepts it. A worker answers the same paths as the controller does for clients: those of
``FORWARDED_PATHS``.

A worker refuses what it cannot take before it has sent anything: 429 when its queue is full, 503
when it drains. Such a request may go to another worker; ``retry-after`` says when to come back.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PROTOCOL_VERSION = 1

REGISTER_PATH = "/register"
HEARTBEAT_PATH = "/heartbeat"
UNREGISTER_PATH = "/unregister"

CHAT_PATH = "/v1/chat/completions"
GENERATE_IMAGES_PATH = "/v1/images/generations"
EDIT_IMAGES_PATH = "/v1/images/edits"
MODELS_PATH = "/v1/models"
ORIGINAL_GENERATE_PATH = "/worker_generate"
ORIGINAL_STATUS_PATH = "/worker_get_status"
HEALTH_PATH = "/health"
METRICS_PATH = "/metrics"

FORWARDED_PATHS = (CHAT_PATH, GENERATE_IMAGES_PATH, EDIT_IMAGES_PATH, ORIGINAL_GENERATE_PATH)
"""POST paths that a controller passes on; the request names its model in ``model``, which of the
original's may be absent."""

EVENT_STREAM, CHUNKS = "text/event-stream", "application/octet-stream"
"""What a streamed reply is: of OpenAI's form, and of the original's."""

REQUEST_ID_HEADER = "x-request-id"
"""Goes from client to controller to worker and back; made where it is absent."""

HEARTBEAT_SECONDS = 5.0
MISSED_HEARTBEATS = 2
"""A worker that has been silent for this many heartbeats is dead."""

BUSY_STATUS = 429
DRAINING_STATUS = 503

Url = Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$", max_length=2048)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Count = Annotated[int, Field(ge=0)]


class Message(BaseModel):
    """A value that travels; what it does not know is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelCard(Message):
    """A model that a worker answers with.

    Args:
        id: what a request names in ``model``.
        version: of its weights; two workers may offer different ones side by side.
        draws: whether it makes pictures.
        max_tokens: of question and reply together.
    """

    id: Name
    version: Name = "1"
    draws: bool = False
    max_tokens: Count = 0


class WorkerLimits(Message):
    """What one request to a worker may hold.

    Args:
        max_body_bytes: of the whole request.
        max_images: pictures in it.
        max_pixels: of each picture.
        max_new_tokens: of one reply.
        max_queue: requests that wait before a further one is refused as busy.
    """

    max_body_bytes: Count
    max_images: Count
    max_pixels: Count
    max_new_tokens: Count
    max_queue: Count


class Registration(Message):
    """A worker says what it is; again after a controller has forgotten it.

    Args:
        url: where the controller reaches the worker.
        models: what it answers with.
        limits: of its requests.
        software: version of this package.
        protocol: version of what is said here.
    """

    url: Url
    models: Annotated[tuple[ModelCard, ...], Field(min_length=1, max_length=64)]
    limits: WorkerLimits
    software: Name
    protocol: int = PROTOCOL_VERSION


class Registered(Message):
    """The controller's answer to a registration.

    Args:
        heartbeat_seconds: how often it wants to hear from the worker.
    """

    heartbeat_seconds: Annotated[float, Field(gt=0, le=3600)] = HEARTBEAT_SECONDS


class Heartbeat(Message):
    """A worker is alive.

    Args:
        url: as registered.
        queued: requests that wait.
        running: requests whose replies are being made.
        models: ids it answers with now.
        draining: whether it takes nothing new.
    """

    url: Url
    queued: Count
    running: Count
    models: tuple[Name, ...]
    draining: bool = False


class HeartbeatTaken(Message):
    """The controller's answer to a heartbeat.

    Args:
        known: False asks the worker to register again.
    """

    known: bool


class Farewell(Message):
    """A worker goes; it gets nothing new, what it has begun it finishes.

    Args:
        url: as registered.
    """

    url: Url


def bearer(token: str | None) -> dict[str, str]:
    """The header that carries a token; empty without one."""
    return {"authorization": f"Bearer {token}"} if token else {}
