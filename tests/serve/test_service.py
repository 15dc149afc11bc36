"""The model of a service."""

import pytest

from mllm_npu.serve.api_errors import ApiError


@pytest.mark.parametrize("name", [None, "", "play"])
def test_its_own_model(scripted, name):
    service = scripted.make_scripted_service(scripted.ScriptedAnswerer(scripted.write_plainly))
    service.check_model(name)


def test_another_model(scripted):
    service = scripted.make_scripted_service(scripted.ScriptedAnswerer(scripted.write_plainly))
    with pytest.raises(ApiError, match="has 'play'") as caught:
        service.check_model("other")
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")
