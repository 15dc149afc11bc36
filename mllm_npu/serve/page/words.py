"""All text of the page in its languages; a language that lacks a word cannot be built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mllm_npu.serve.page.trouble import Trouble


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The text of the page in one language.

    Names say where it stands. ``troubles`` and what has braces takes values: ``said`` the server's
    own words, ``number``, ``total``, ``seconds``, ``field``, ``low``, ``high``.
    """

    code: str
    own_name: str
    title: str
    subtitle: str
    language: str
    chat: str
    draw: str
    edit: str
    compare: str
    model: str
    models: str
    you: str
    no_model: str
    key: str
    key_hint: str
    ask: str
    ask_first: str
    stop: str
    retry: str
    undo: str
    clear: str
    save_json: str
    save_zip: str
    settings: str
    temperature: str
    top_p: str
    max_tokens: str
    seed: str
    images: str
    images_auto: str
    images_force: str
    images_forbid: str
    as_model: str
    thrown: str
    prompt: str
    prompt_hint: str
    number: str
    steps: str
    guidance: str
    image_guidance: str
    start_drawing: str
    picture: str
    instruction: str
    instruction_hint: str
    start_editing: str
    result: str
    results: str
    use_result: str
    examples: str
    first_model: str
    second_model: str
    next_in_line: str
    ahead: str
    elapsed: str
    drawn_so_far: str
    nothing_asked: str
    nothing_said: str
    no_picture: str
    does_not_draw: str
    bad_picture: str
    picture_gone: str
    bad_number: str
    bad_range: str
    nothing_to_save: str
    whole_number: str
    any_number: str
    endings: Mapping[str, str]
    troubles: Mapping[Trouble, str]
    general_examples: tuple[str, ...]
    general_drawings: tuple[str, ...]


ENGLISH = Words(
    code="en",
    own_name="English",
    title="mllm-npu",
    subtitle="Text and pictures in, text and pictures out",
    language="Language",
    chat="Chat",
    draw="Draw",
    edit="Edit",
    compare="Compare",
    model="Model",
    models="Models",
    you="You",
    no_model="No model is here yet. This list looks again by itself.",
    key="API key",
    key_hint="The controller wants a key. It stays in this tab.",
    ask="Ask something, drop or paste pictures",
    ask_first="What would you like to know, or to see?",
    stop="Stop",
    retry="Try again",
    undo="Undo",
    clear="Clear",
    save_json="Save as JSON",
    save_zip="Save with pictures",
    settings="Settings",
    temperature="Temperature",
    top_p="Top-p",
    max_tokens="Longest reply (tokens)",
    seed="Seed",
    images="Pictures in the reply",
    images_auto="the model decides",
    images_force="always",
    images_forbid="never",
    as_model="default",
    thrown="random",
    prompt="What should be drawn?",
    prompt_hint="Describe the picture",
    number="Number of pictures",
    steps="Steps",
    guidance="Guidance",
    image_guidance="Guidance by the picture",
    start_drawing="Draw",
    picture="Picture",
    instruction="What should change?",
    instruction_hint="For example: make the sky red",
    start_editing="Change it",
    result="Result",
    results="Pictures",
    use_result="Go on with the result",
    examples="Examples",
    first_model="First model",
    second_model="Second model",
    next_in_line="Next in line",
    ahead="{number} ahead",
    elapsed="{seconds} s",
    drawn_so_far="{number} of {total} drawn",
    nothing_asked="Write something or add a picture first.",
    nothing_said="The reply is empty.",
    no_picture="Add a picture first.",
    does_not_draw="{said} makes no pictures. Choose another model.",
    bad_picture="This file is no picture that can be taken ({said}). Take PNG, JPEG or WebP of at "
    "most {number} MB.",
    picture_gone="A picture of this chat was removed because it is old. Clear the chat.",
    bad_number="{field}: give {said} from {low}, or nothing.",
    bad_range="{field}: give {said} from {low} to {high}, or nothing.",
    nothing_to_save="There is nothing to save yet.",
    whole_number="a whole number",
    any_number="a number",
    endings={
        "stopped": "Stopped.",
        "length": "The longest reply is reached.",
    },
    troubles={
        Trouble.AWAY: "The controller at {said} does not answer. Start it, or wait for it.",
        Trouble.KEY: "The controller wants an API key, and takes no other. It says: {said}",
        Trouble.BUSY: "All workers are busy. Try again in a moment. The server says: {said}",
        Trouble.ABSENT: "Nobody takes this question now. The server says: {said}",
        Trouble.LATE: "The reply took too long. The server says: {said}",
        Trouble.REFUSED: "The question was refused. The server says: {said}",
        Trouble.FAILED: "The server failed. It says: {said}",
        Trouble.CUT: "The reply broke off. Try again. {said}",
    },
    general_examples=("What can you do?", "Draw a red house by the sea."),
    general_drawings=("A red house by the sea.", "A cat that sleeps in the sun."),
)

CHINESE = Words(
    code="zh",
    own_name="中文",
    title="mllm-npu",
    subtitle="输入文字和图片，得到文字和图片",
    language="语言",
    chat="对话",
    draw="绘图",
    edit="改图",
    compare="对比",
    model="模型",
    models="模型",
    you="你",
    no_model="还没有可用的模型，列表会自动刷新。",
    key="API 密钥",
    key_hint="控制器需要密钥。密钥只留在此标签页中。",
    ask="输入问题，可拖放或粘贴图片",
    ask_first="想问什么，或者想看什么？",
    stop="停止",
    retry="重试",
    undo="撤销",
    clear="清空",
    save_json="保存为 JSON",
    save_zip="连同图片保存",
    settings="设置",
    temperature="温度",
    top_p="Top-p",
    max_tokens="回答最大长度（词元）",
    seed="随机种子",
    images="回答中的图片",
    images_auto="由模型决定",
    images_force="总是画",
    images_forbid="不画",
    as_model="默认",
    thrown="随机",
    prompt="画什么？",
    prompt_hint="描述这张图片",
    number="图片数量",
    steps="步数",
    guidance="引导强度",
    image_guidance="原图引导强度",
    start_drawing="开始绘制",
    picture="图片",
    instruction="怎么改？",
    instruction_hint="例如：把天空改成红色",
    start_editing="开始修改",
    result="结果",
    results="图片",
    use_result="在结果上继续修改",
    examples="示例",
    first_model="第一个模型",
    second_model="第二个模型",
    next_in_line="下一个就是你",
    ahead="前面还有 {number} 个请求",
    elapsed="{seconds} 秒",
    drawn_so_far="已完成 {number}/{total} 张",
    nothing_asked="请先输入文字或添加图片。",
    nothing_said="回答是空的。",
    no_picture="请先添加图片。",
    does_not_draw="{said} 不会画图，请选择其他模型。",
    bad_picture="无法读取这个图片文件（{said}）。请使用 PNG、JPEG 或 WebP，最大 {number} MB。",
    picture_gone="对话中的一张图片因存放过久已被删除，请清空对话。",
    bad_number="{field}：请填写不小于 {low} 的{said}，或留空。",
    bad_range="{field}：请填写 {low} 到 {high} 之间的{said}，或留空。",
    nothing_to_save="还没有可以保存的内容。",
    whole_number="整数",
    any_number="数字",
    endings={
        "stopped": "已停止。",
        "length": "已达到最大长度。",
    },
    troubles={
        Trouble.AWAY: "控制器 {said} 没有响应。请启动它，或稍等片刻。",
        Trouble.KEY: "控制器需要有效的 API 密钥。它说：{said}",
        Trouble.BUSY: "所有工作进程都在忙，请稍后重试。服务器说：{said}",
        Trouble.ABSENT: "现在没有工作进程接受这个请求。服务器说：{said}",
        Trouble.LATE: "回答用时过长。服务器说：{said}",
        Trouble.REFUSED: "请求被拒绝。服务器说：{said}",
        Trouble.FAILED: "服务器出错。它说：{said}",
        Trouble.CUT: "回答中断，请重试。{said}",
    },
    general_examples=("你能做什么？", "画一座海边的红房子。"),
    general_drawings=("一座海边的红房子。", "一只在阳光下睡觉的猫。"),
)

LANGUAGES = {words.code: words for words in (ENGLISH, CHINESE)}
