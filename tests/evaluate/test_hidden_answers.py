from dataclasses import replace

from mllm_npu.evaluate.hidden_answers import answered_figure


def test_the_share_that_can_be_read_is_no_score(fakes):
    read, unread = fakes.make_record("", "B", 0), fakes.make_record("", "?", 1)
    records = [read, replace(unread, understood=None), read, read]
    figure = answered_figure(records, name="quiz", title="Quiz test", citation="someone")
    assert figure.name == "quiz/answered"
    assert figure.value == 0.75
    assert figure.num_unread == 1
    assert "not published" in figure.title
    assert figure.citation == "someone"
