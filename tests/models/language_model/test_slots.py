from mllm_npu.models.language_model.slots import Span


def test_a_span_knows_where_it_ends():
    assert Span(slot=1, start=7, length=3).end == 10
