"""How events are bound: hidden from the outside, without waiting for each other."""

from types import SimpleNamespace

import gradio as gr

from mllm_npu.serve.page.conversation import Conversation
from mllm_npu.serve.page.shared import bind, model_field, session_of, tab_of
from mllm_npu.serve.page.tabs import Tabs


async def change(values):
    return values


async def leave():
    return None


def bind_two():
    with gr.Blocks(analytics_enabled=False) as blocks:
        field, button = gr.Textbox(), gr.Button()
        bind(button.click, change, [field], [field])
        bind(button.click, leave, (), (), queue=False)
    return blocks.fns.values()


def test_an_event_is_private_and_unlimited(build):
    first, second = build(bind_two)
    assert first.concurrency_limit is None
    assert first.api_visibility == "private"
    assert first.inputs_as_dict
    assert (first.queue, second.queue) == (True, False)


def make_field():
    with gr.Blocks(analytics_enabled=False):
        return model_field("Model", name="model")


def test_a_model_may_be_one_that_the_page_was_not_told_of(build):
    assert build(make_field).preprocess("unheard of") == "unheard of"


def test_a_session_is_its_hash():
    assert session_of(SimpleNamespace(session_hash="abc")) == "abc"


def test_a_tab_without_a_name_has_one_for_as_long_as_its_page():
    first, second = (SimpleNamespace(session_hash=name) for name in ("abc", "def"))
    assert tab_of("name", first) == "name"
    assert tab_of("", first) == tab_of(None, first) != tab_of("", second)
    tabs = Tabs()
    tabs.put(tab_of("", first), "chat", Conversation().ask("hi"))
    assert tabs.get(tab_of("", first), "chat").waits
