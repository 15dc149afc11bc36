"""From events to OpenAI's forms."""

import asyncio

from mllm_npu.inference.events import TextDelta, TokenLogprob
from mllm_npu.processing.grounding import Box
from mllm_npu.serve.chat_reply import ChatHead, Choice, Usage, describe_logprobs, stream_pieces


def take(choice, *events):
    async def all_of_them():
        return [await choice.take(event) for event in events]

    return asyncio.run(all_of_them())


def test_a_choice_adds_up(scripted):
    usage = Usage()
    choice = Choice(index=1, usage=usage)
    box = Box(x0=0, y0=0, x1=1, y1=1, label="all")
    said = take(
        choice,
        TextDelta(text="ab"),
        scripted.drawn(),
        TextDelta(text="c"),
        scripted.drawn(),
        scripted.finished("length", boxes=(box,)),
    )
    assert said[0] == {"content": "ab"}
    assert said[-1] is None
    told = choice.to_json()
    assert told["index"] == 1
    assert told["message"]["content"] == "abc"
    assert [image["offset"] for image in told["message"]["images"]] == [2, 3]
    assert [image["index"] for image in told["message"]["images"]] == [0, 1]
    assert told["message"]["boxes"][0]["label"] == "all"
    assert (told["finish_reason"], told["logprobs"]) == ("length", None)
    assert usage.to_json() == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


def test_a_reply_of_text_has_no_other_fields(scripted):
    choice = Choice(index=0, usage=Usage())
    take(choice, scripted.finished())
    assert choice.to_json()["message"] == {"role": "assistant", "content": "", "refusal": None}


def test_the_question_is_counted_once(scripted):
    usage = Usage()
    for index in range(3):
        take(Choice(index=index, usage=usage), scripted.finished())
    assert (usage.prompt_tokens, usage.completion_tokens) == (5, 9)


def test_pieces_have_one_head(scripted):
    usage = Usage()
    choices = [Choice(index=index, usage=usage) for index in range(2)]

    async def events():
        for index in (0, 1):
            yield index, TextDelta(text="x")
            yield index, scripted.finished()

    async def read():
        head = ChatHead("m")
        return [piece async for piece in stream_pieces(head, events(), choices=choices)]

    pieces = asyncio.run(read())
    assert len({piece["id"] for piece in pieces}) == 1
    assert {piece["object"] for piece in pieces} == {"chat.completion.chunk"}
    told = [(one["index"], one["finish_reason"]) for piece in pieces for one in piece["choices"]]
    assert told == [(0, None), (1, None), (0, None), (0, "stop"), (1, None), (1, "stop")]


def test_probabilities():
    assert describe_logprobs([]) is None
    token = TokenLogprob(token_id=3, text="é", logprob=-1.0)
    assert describe_logprobs([token])["content"] == [
        {"token": "é", "logprob": -1.0, "bytes": [195, 169], "top_logprobs": []}
    ]
