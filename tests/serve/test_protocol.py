"""What travels between worker and controller."""

import pytest
from pydantic import ValidationError

from mllm_npu.serve.protocol import (
    FORWARDED_PATHS,
    Heartbeat,
    ModelCard,
    Registration,
    WorkerLimits,
    bearer,
)

LIMITS = WorkerLimits(max_body_bytes=1, max_images=1, max_pixels=1, max_new_tokens=1, max_queue=1)


DIGITS = ModelCard(id="digits")


def register(url="http://127.0.0.1:40000", models=(DIGITS,)):
    return Registration(url=url, models=models, limits=LIMITS, software="1.0")


def test_a_registration_travels():
    said = register()
    assert Registration.model_validate_json(said.model_dump_json()) == said
    assert said.protocol == 1


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1", "ftp://x", "http://", "http://a b", "http://a@b", "http://x?y", "file:///x"],
)
def test_addresses_that_are_none(url):
    with pytest.raises(ValidationError):
        register(url=url)


def test_a_worker_has_a_model():
    with pytest.raises(ValidationError):
        register(models=())


def test_what_is_not_known_is_refused():
    with pytest.raises(ValidationError):
        Heartbeat.model_validate({"url": "http://x", "queued": 0, "running": 0, "mood": 1})
    with pytest.raises(ValidationError):
        Heartbeat(url="http://x", queued=-1, running=0, models=())


def test_paths_and_header():
    assert "/worker_generate" in FORWARDED_PATHS
    assert bearer("secret") == {"authorization": "Bearer secret"}
    assert bearer(None) == bearer("") == {}
