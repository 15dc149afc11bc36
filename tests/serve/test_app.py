"""The application is put together in the order its guards need."""

from mllm_npu.serve.accounting import Accounting
from mllm_npu.serve.app import build_app
from mllm_npu.serve.security import ApiKeys, BodyLimit, KeyGuard


def test_who_asks_is_known_before_anything_is_read(scripted):
    service = scripted.make_scripted_service(scripted.ScriptedAnswerer(scripted.write_plainly))
    app = build_app(service, keys=ApiKeys(["a-key-for-tests"]))
    assert [entry.cls for entry in app.user_middleware] == [Accounting, KeyGuard, BodyLimit]
    assert app.state.service is service


def test_limits_reach_the_reader(scripted):
    answerer = scripted.ScriptedAnswerer(scripted.write_plainly)
    service = scripted.make_scripted_service(answerer, max_pixels=7)
    assert service.reader.max_pixels == 7
    assert service.reception.answerer is answerer


def test_pages_of_others_are_not_part_of_the_api(scripted):
    service = scripted.make_scripted_service(scripted.ScriptedAnswerer(scripted.write_plainly))
    app = build_app(service)
    assert app.docs_url is None
    assert app.redoc_url is None
    assert app.openapi()["info"]["title"] == "mllm-npu worker"
