"""The fields of the settings stand in the order in which they are read."""

import gradio as gr
import pytest

from mllm_npu.serve.page.settings import read_settings
from mllm_npu.serve.page.settings_panel import make_settings_panel, number_field
from mllm_npu.serve.page.words import LANGUAGES


def inside(make, *arguments, **options):
    with gr.Blocks(analytics_enabled=False):
        return make(*arguments, **options)


@pytest.mark.parametrize("words", LANGUAGES.values(), ids=LANGUAGES)
def test_the_fields_are_those_of_the_settings(words, build):
    panel = build(inside, make_settings_panel, words, name="chat")
    labels = [field.label for field in panel.fields]
    assert labels == [words.temperature, words.top_p, words.max_tokens, words.seed, words.images]
    assert read_settings(*[field.value or "" for field in panel.fields]).images == "auto"
    assert [choice for _, choice in panel.images.choices] == ["auto", "force", "forbid"]


def test_a_number_may_be_absent(build):
    field = build(inside, number_field, "Seed", "random", name="seed", visible=False)
    assert (field.placeholder, field.visible, field.elem_id) == ("random", False, "seed")
