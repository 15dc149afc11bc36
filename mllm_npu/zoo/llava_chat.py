"""The conversation formats of released LLaVA models, and which of them a folder was trained with.

A template of the Hub is a program in Jinja; it is looked at, never run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mllm_npu.errors import ConfigError
from mllm_npu.zoo.hub_folder import HubFolder

Frames = Mapping[str, Any]

_TARGET = "mllm_npu.processing.chat_template.ChatTemplate"
_VICUNA: Frames = {
    "user_prefix": "USER: ",
    "user_suffix": " ",
    "assistant_prefix": "ASSISTANT:",
    "assistant_gap": " ",
    "picture_suffix": "\n",
}
CHAT_FORMATS: Mapping[str, Frames] = {
    "vicuna": {**_VICUNA, "system_suffix": " "},
    "vicuna_with_system": {
        **_VICUNA,
        "system": (
            "A chat between a curious human and an artificial intelligence assistant. The "
            "assistant gives helpful, detailed, and polite answers to the human's questions."
        ),
        "system_suffix": " ",
    },
    "mistral": {
        "user_prefix": "[INST] ",
        "user_suffix": " [/INST]",
        "assistant_gap": " ",
        "picture_suffix": "\n",
    },
    "llama3": {
        "system": (
            "You are a helpful language and vision assistant. You are able to understand the "
            "visual content that the user provides, and assist the user with a variety of tasks "
            "using natural language."
        ),
        "system_prefix": "<|start_header_id|>system<|end_header_id|>\n\n",
        "system_suffix": "<|eot_id|>",
        "user_prefix": "<|start_header_id|>user<|end_header_id|>\n\n",
        "user_suffix": "<|eot_id|>",
        "assistant_prefix": "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "assistant_suffix": "<|eot_id|>",
        "picture_suffix": "\n",
        "close_with_eos": False,
    },
    "chatml": {
        "system": "You are a helpful assistant.",
        "system_prefix": "<|im_start|>system\n",
        "system_suffix": "<|im_end|>\n",
        "user_prefix": "<|im_start|>user\n",
        "user_suffix": "<|im_end|>\n",
        "assistant_prefix": "<|im_start|>assistant\n",
        "assistant_suffix": "<|im_end|>\n",
        "picture_suffix": "\n",
        "close_with_eos": False,
    },
    "chatml_tight": {
        "system": "Answer the questions.",
        "system_prefix": "<|im_start|>system\n",
        "system_suffix": "<|im_end|>",
        "user_prefix": "<|im_start|>user\n",
        "user_suffix": "<|im_end|>",
        "assistant_prefix": "<|im_start|>assistant\n",
        "assistant_suffix": "<|im_end|>",
        "picture_suffix": "\n",
        "close_with_eos": False,
    },
    "chatml_onevision": {
        "system_prefix": "<|im_start|>system ",
        "system_suffix": "<|im_end|>",
        "user_prefix": "<|im_start|>user ",
        "user_suffix": "<|im_end|>",
        "assistant_prefix": "<|im_start|>assistant\n",
        "assistant_suffix": "<|im_end|>",
        "picture_suffix": "\n",
        "suffix_each_picture": False,
        "close_with_eos": False,
    },
}
"""Arguments of `ChatTemplate` by name, as in the templates that the models were released with."""

_BY_LANGUAGE_MODEL = {"mistral": "mistral", "mixtral": "mistral", "llama": "vicuna"}


def chat_values(hub: HubFolder, name: str | None = None) -> dict[str, Any]:
    """The chat template of an imported model, as values of a configuration.

    Args:
        hub: the folder.
        name: of a format; None recognises it by the folder's template, or by its language model
            where it has none.

    Raises:
        ConfigError: no format of that name, or none is recognised.
    """
    found = name or recognise_format(hub)
    if found not in CHAT_FORMATS:
        raise ConfigError(
            f"chat format {found!r} was asked for. There are: {', '.join(CHAT_FORMATS)}."
        )
    return {"_target_": _TARGET, **CHAT_FORMATS[found]}


def recognise_format(hub: HubFolder) -> str:
    """Name of the format of a folder.

    Raises:
        ConfigError: its template is of none that is known.
    """
    template = find_template(hub)
    if not template:
        language = str((hub.config.get("text_config") or {}).get("model_type", "llama"))
        return _BY_LANGUAGE_MODEL.get(language) or _chatml(hub, "")
    if "<|start_header_id|>" in template:
        return "llama3"
    if "<|im_start|>" in template:
        return _chatml(hub, template)
    if "[INST]" in template:
        return "mistral"
    if "ASSISTANT" in template:
        return "vicuna_with_system" if "A chat between a curious" in template else "vicuna"
    raise ConfigError(
        f"The chat template in {hub.path} is of no known format. Name one: --chat-format "
        f"{', '.join(CHAT_FORMATS)}."
    )


def find_template(hub: HubFolder) -> str:
    """The text of a folder's chat template, wherever it keeps it; empty where it has none."""
    found = hub.read_text("chat_template.jinja")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        found = found or _named(hub.read_json(name).get("chat_template"))
    return found


def _named(template: Any) -> str:
    """A template, or the one called default of several."""
    if isinstance(template, str):
        return template
    named = template if isinstance(template, list) else []
    return next((str(each.get("template")) for each in named if each.get("name") == "default"), "")


def _chatml(hub: HubFolder, template: str) -> str:
    if hub.model_type == "llava_onevision":
        return "chatml_onevision"
    # Written out in the template, a line break is a backslash and a letter.
    is_broken = not template or "<|im_end|>\\n" in template or "<|im_end|>\n" in template
    return "chatml" if is_broken else "chatml_tight"
