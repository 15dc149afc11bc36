"""The format of a folder's conversations is recognised without running its template."""

import json

import pytest

from mllm_npu.errors import ConfigError
from mllm_npu.processing.chat_template import ChatTemplate
from mllm_npu.zoo.hub_folder import HubFolder
from mllm_npu.zoo.llava_chat import CHAT_FORMATS, chat_values, find_template, recognise_format


@pytest.fixture
def hub(tmp_path):
    def make(template=None, *, family="llava_next", language="llama", file="chat_template.jinja"):
        if template is not None and file.endswith("jinja"):
            (tmp_path / file).write_text(template)
        elif template is not None:
            (tmp_path / file).write_text(json.dumps({"chat_template": template}))
        config = {"model_type": family, "text_config": {"model_type": language}}
        return HubFolder(path=tmp_path, config=config, shards=())

    return make


@pytest.mark.parametrize(
    ("template", "settings", "expected"),
    [
        ("{{ 'USER: ' }}{{ 'ASSISTANT:' }}", {}, "vicuna"),
        ("A chat between a curious human ... ASSISTANT:", {}, "vicuna_with_system"),
        ("[INST] {{ x }} [/INST]", {}, "mistral"),
        ("<|start_header_id|>{{ x }}<|eot_id|>", {}, "llama3"),
        ("<|im_start|>{{ x }}<|im_end|>\\n", {}, "chatml"),
        ("<|im_start|>{{ x }}<|im_end|>{{ y }}", {}, "chatml_tight"),
        ("<|im_start|>{{ x }}<|im_end|>", {"family": "llava_onevision"}, "chatml_onevision"),
        (None, {"language": "llama"}, "vicuna"),
        (None, {"language": "mistral"}, "mistral"),
        (None, {"language": "qwen2"}, "chatml"),
        (None, {"language": "qwen2", "family": "llava_onevision"}, "chatml_onevision"),
    ],
)
def test_each_format_is_recognised(hub, template, settings, expected):
    assert recognise_format(hub(template, **settings)) == expected


@pytest.mark.parametrize(
    "file",
    [
        "chat_template.jinja",
        "chat_template.json",
        "processor_config.json",
        "tokenizer_config.json",
    ],
)
def test_the_template_is_found_wherever_it_is(hub, file):
    assert find_template(hub("[INST]", file=file)) == "[INST]"


def test_of_several_templates_the_default_counts(hub):
    several = [{"name": "tool", "template": "x"}, {"name": "default", "template": "[INST]"}]
    assert find_template(hub(several, file="tokenizer_config.json")) == "[INST]"


def test_a_template_of_no_known_format_asks_for_a_name(hub):
    with pytest.raises(ConfigError, match="--chat-format vicuna"):
        recognise_format(hub("### Human: {{ x }}"))
    assert chat_values(hub("### Human: {{ x }}"), "mistral")["user_prefix"] == "[INST] "
    with pytest.raises(ConfigError, match=r"'alpaca'.*vicuna, "):
        chat_values(hub(), "alpaca")


@pytest.mark.parametrize("name", CHAT_FORMATS)
def test_every_format_is_a_template(hub, name):
    values = chat_values(hub(), name)
    assert values.pop("_target_").endswith("ChatTemplate")
    template = ChatTemplate(**values)
    assert template.picture_suffix == "\n"
    assert template.frames[1][0]
