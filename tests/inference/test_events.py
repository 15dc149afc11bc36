import pytest
import torch
from PIL import Image

from mllm_npu.inference.events import Finished, ImageMade, TextDelta, TokenLogprob, collect_reply


def test_events_add_up_to_a_reply():
    picture = Image.new("RGB", (2, 2))
    features = torch.ones(3, 4)
    reply = collect_reply(
        [
            TextDelta(text="a "),
            ImageMade(picture=picture, features=features),
            TextDelta(text="b"),
            Finished(reason="stop", num_prompt_tokens=7, num_new_tokens=3, num_pictures=1),
        ]
    )
    assert (reply.text, reply.finish_reason) == ("a b", "stop")
    assert reply.pictures == (picture,)
    assert reply.features[0] is features
    assert (reply.num_prompt_tokens, reply.num_new_tokens) == (7, 3)


def test_events_without_an_end_are_refused():
    with pytest.raises(ValueError, match="must end with Finished"):
        collect_reply([TextDelta(text="a")])


def test_probabilities_add_up_too():
    told = [TokenLogprob(token_id=number, text="x", logprob=-1.0) for number in range(3)]
    end = Finished(reason="stop", num_prompt_tokens=1, num_new_tokens=3, num_pictures=0)
    reply = collect_reply(
        [TextDelta(text="x", logprobs=(told[0],)), TextDelta(text="xx", logprobs=(*told[1:],)), end]
    )
    assert reply.logprobs == tuple(told)
