"""OpenAI's chat completions, driven by OpenAI's own client against a real server."""

import asyncio
import base64
import io

import httpx
import openai
import pytest
from PIL import Image

from mllm_npu.errors import RequestError
from mllm_npu.inference.events import TextDelta, TokenLogprob
from mllm_npu.processing.conversation import DrawnImage, ReadImage, Text
from mllm_npu.processing.grounding import Box

ASK = {"model": "play", "messages": [{"role": "user", "content": "Say hello."}]}


def client_of(worker):
    return openai.OpenAI(base_url=f"{worker.url}/v1", api_key="none", max_retries=0, timeout=30)


def data_url(colour="blue", form="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", (5, 3), colour).save(stream, format=form)
    packed = base64.b64encode(stream.getvalue()).decode()
    return f"data:image/{form.lower()};base64,{packed}"


def picture_of(url):
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


@pytest.fixture(scope="module")
def client(plain_worker):
    with client_of(plain_worker) as client:
        yield client


def test_a_reply(client, plain_worker):
    reply = client.chat.completions.create(**ASK)
    (choice,) = reply.choices
    assert reply.id.startswith("chatcmpl-")
    assert (reply.object, reply.model) == ("chat.completion", "play")
    assert choice.message.role == "assistant"
    assert choice.message.content == "Hello world"
    assert choice.finish_reason == "stop"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (5, 3)
    assert reply.usage.total_tokens == 8
    conversation, options = plain_worker.answerer.asked[-1]
    assert conversation.turns[0].parts == (Text(text="Say hello."),)
    assert options.max_new_tokens == 16
    assert options.seed is None


def test_a_stream(client):
    pieces = list(client.chat.completions.create(**ASK, stream=True))
    assert [piece.choices[0].delta.content for piece in pieces] == ["", "Hello", " world", None]
    assert pieces[0].choices[0].delta.role == "assistant"
    assert pieces[-1].choices[0].finish_reason == "stop"
    assert len({piece.id for piece in pieces}) == 1
    assert all(piece.usage is None for piece in pieces)


def test_a_stream_with_usage(client):
    options = {"include_usage": True}
    *_, last = client.chat.completions.create(**ASK, stream=True, stream_options=options, n=2)
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (5, 6)


def test_the_asynchronous_client(plain_worker):
    async def ask():
        async with openai.AsyncOpenAI(
            base_url=f"{plain_worker.url}/v1", api_key="none", max_retries=0
        ) as client:
            replies = await asyncio.gather(
                *(client.chat.completions.create(**ASK) for _ in range(8))
            )
            stream = await client.chat.completions.create(**ASK, stream=True)
            streamed = [piece.choices[0].delta.content or "" async for piece in stream]
            return [reply.choices[0].message.content for reply in replies], "".join(streamed)

    replies, streamed = asyncio.run(ask())
    assert replies == ["Hello world"] * 8
    assert streamed == "Hello world"


def test_every_option_reaches_the_engine(client, plain_worker):
    client.chat.completions.create(
        **ASK,
        temperature=0.5,
        top_p=0.9,
        seed=7,
        max_completion_tokens=11,
        stop=["\n", "END"],
        extra_body={
            "top_k": 4,
            "min_p": 0.1,
            "repetition_penalty": 1.1,
            "images": "forbid",
            "image_steps": 3,
            "guidance": 1.5,
            "image_guidance": 1.2,
        },
    )
    options = plain_worker.answerer.asked[-1][1]
    assert (options.temperature, options.top_p, options.seed) == (0.5, 0.9, 7)
    assert (options.max_new_tokens, options.stop) == (11, ("\n", "END"))
    assert (options.top_k, options.min_p, options.repetition_penalty) == (4, 0.1, 1.1)
    assert (options.images, options.image_steps) == ("forbid", 3)
    assert (options.guidance, options.image_guidance) == (1.5, 1.2)


def test_several_choices_have_seeds_of_their_own(client, plain_worker):
    reply = client.chat.completions.create(**ASK, n=3, seed=5)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert [options.seed for _, options in plain_worker.answerer.asked[-3:]] == [5, 6, 7]


def test_turns_pictures_and_system_prompt(client, plain_worker):
    client.chat.completions.create(
        model="play",
        messages=[
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": data_url()}},
                    {"type": "text", "text": "Draw it."},
                ],
            },
            {
                "role": "assistant",
                "content": "Here.",
                "images": [{"type": "image_url", "image_url": {"url": data_url("green", "JPEG")}}],
            },
            {"role": "user", "content": "Bigger."},
        ],
    )
    turns = plain_worker.answerer.asked[-1][0].turns
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "user"]
    read, text = turns[1].parts
    assert isinstance(read, ReadImage)
    assert read.picture.getpixel((0, 0)) == (0, 0, 255)
    assert text.text == "Draw it."
    said, drawn = turns[2].parts
    assert (said.text, type(drawn)) == ("Here.", DrawnImage)


def test_drawn_pictures_come_back_and_may_be_sent_again(client, plain_worker):
    reply = client.chat.completions.create(**ASK, seed=9, extra_body={"images": "force"})
    message = reply.choices[0].message
    assert reply.choices[0].finish_reason == "length"
    (image,) = message.images
    assert (image["type"], image["offset"]) == ("image_url", 0)
    assert (image["width"], image["height"]) == (6, 4)
    assert picture_of(image["image_url"]["url"]).getpixel((0, 0)) == (9, 0, 0)
    again = [*ASK["messages"], message.model_dump(), {"role": "user", "content": "Again."}]
    client.chat.completions.create(model="play", messages=again)
    assert isinstance(plain_worker.answerer.asked[-1][0].turns[1].parts[0], DrawnImage)


def test_drawn_pictures_in_a_stream(client):
    pieces = list(
        client.chat.completions.create(**ASK, stream=True, extra_body={"images": "force"})
    )
    (image,) = pieces[1].choices[0].delta.images
    assert picture_of(image["image_url"]["url"]).size == (6, 4)


def test_probabilities_and_boxes(scripted):
    unlikely = TokenLogprob(token_id=2, text="no", logprob=float("-inf"))
    likely = TokenLogprob(token_id=1, text="yes", logprob=-0.5, top=(unlikely,))
    box = Box(x0=0.1, y0=0.2, x1=0.3, y1=0.4, label="dog")

    def write(conversation, options):
        assert options.logprobs == 1
        return [TextDelta(text="yes", logprobs=(likely,)), scripted.finished(boxes=(box,))]

    with scripted.running(write) as worker, client_of(worker) as client:
        choice = client.chat.completions.create(**ASK, logprobs=True, top_logprobs=1).choices[0]
        assert choice.logprobs.content[0].logprob == -0.5
        assert choice.logprobs.content[0].bytes == list(b"yes")
        assert choice.logprobs.content[0].top_logprobs[0].logprob == -9999.0
        assert choice.message.boxes[0]["label"] == "dog"
        asked = {**ASK, "logprobs": True, "top_logprobs": 1}
        pieces = list(client.chat.completions.create(**asked, stream=True))
        assert pieces[1].choices[0].logprobs.content[0].token == "yes"
        assert pieces[-1].choices[0].delta.boxes[0]["x0"] == 0.1


def test_models(client):
    assert [model.id for model in client.models.list()] == ["play"]
    model = client.models.retrieve("play")
    assert model.owned_by == "mllm-npu"
    assert (model.draws, model.max_tokens) == (True, 64)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"temperature": -1}, "temperature", "greater"),
        ({"temprature": 1}, "temprature", "no such parameter"),
        ({"max_tokens": 5000}, "max_tokens", "4096"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", "mean the same"),
        ({"n": 9}, "n", "at most 8"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "0"),
        ({"tools": [{"type": "function"}]}, "tools", "at most 0"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0", "tag"),
        ({"top_logprobs": 2}, None, "logprobs=true"),
        ({"image_steps": 201}, "image_steps", "at most 200"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "file:///etc/x"}}],
                    }
                ]
            },
            "image_url",
            "data URL",
        ),
    ],
)
def test_what_does_not_fit_is_a_400(client, changes, param, words):
    with pytest.raises(openai.BadRequestError, match=words) as caught:
        client.chat.completions.with_raw_response.create(**ASK, extra_body=changes)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_another_model_is_a_404(client):
    with pytest.raises(openai.NotFoundError, match="has 'play'") as caught:
        client.chat.completions.create(model="other", messages=ASK["messages"])
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_refuses_is_a_400_also_of_a_stream(scripted, stream):
    def write(conversation, options):
        return [RequestError("The question is too long. Shorten it.")]

    with (
        scripted.running(write) as worker,
        client_of(worker) as client,
        pytest.raises(openai.BadRequestError, match="too long"),
    ):
        client.chat.completions.create(**ASK, stream=stream)


def test_a_full_queue_is_a_429(scripted):
    with scripted.running() as worker, client_of(worker) as client:
        worker.answerer.room = 0
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(**ASK)
        assert caught.value.response.headers["retry-after"] == "1"
        assert worker.num_open == 0


def test_a_failure_is_a_500_that_tells_nothing_of_the_inside(scripted):
    def write(conversation, options):
        return [OSError("/secret/path")]

    with scripted.running(write) as worker, client_of(worker) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(**ASK)
        assert "secret" not in str(caught.value)


def test_a_failure_inside_a_stream_is_told_in_it(scripted):
    def write(conversation, options):
        return [TextDelta(text="Hel"), 0.3, RequestError("No more room.")]

    with scripted.running(write) as worker, client_of(worker) as client:
        stream = client.chat.completions.create(**ASK, stream=True)
        with pytest.raises(openai.APIError, match="No more room"):
            list(stream)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_calls_its_request_off(scripted, stream):
    with scripted.running(patience_seconds=0.05) as worker:
        worker.answerer.gate.clear()
        with pytest.raises(httpx.TimeoutException):
            httpx.post(
                f"{worker.url}/v1/chat/completions",
                json={**ASK, "stream": stream, "n": 2},
                timeout=0.7,
            )
        worker.wait_for(lambda: len(worker.answerer.cancelled) == 2, "the end of both")
        worker.wait_for(lambda: worker.num_open == 0, "an empty reception")


def test_a_stream_that_waits_tells_its_place(scripted, monkeypatch):
    monkeypatch.setattr("mllm_npu.serve.event_stream.PING_SECONDS", 0.1)
    with scripted.running(patience_seconds=0.05) as worker:
        worker.answerer.gate.clear()
        url = f"{worker.url}/v1/chat/completions"
        with httpx.stream("POST", url, json={**ASK, "stream": True}, timeout=30) as reply:
            lines = reply.iter_lines()
            assert next(lines) == ": 3 in front"
            worker.answerer.gate.set()
            assert "Hello" in "".join(lines)


def test_a_reply_that_takes_too_long_is_a_504(scripted):
    with scripted.running(request_seconds=0.2) as worker, client_of(worker) as client:
        worker.answerer.gate.clear()
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(**ASK)
        assert caught.value.status_code == 504
        worker.wait_for(lambda: worker.num_open == 0)
