import pytest
from PIL import Image

from mllm_npu.errors import RequestError, SkipSample
from mllm_npu.processing.conversation import Conversation, DrawnImage, ReadImage, Text, Turn
from mllm_npu.processing.conversation_check import check_turns, refuse

PICTURE = Image.new("RGB", (2, 2))
EMPTY = Image.new("RGB", (0, 2))


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ((), "has no turns"),
        ((Turn(role="user", parts=()),), "user turn is empty"),
        ((Turn(role="user", parts=(Text(text=" "),)),), "user turn is empty"),
        ((Turn(role="user", parts=(ReadImage(picture=EMPTY),)),), "no pixels"),
        ((Turn(role="user", parts=(DrawnImage(picture=PICTURE),)),), "drawn in a user turn"),
        ((Turn(role="system", parts=(DrawnImage(picture=PICTURE),)),), "drawn in a system turn"),
    ],
)
@pytest.mark.parametrize(("reply", "error"), [(False, SkipSample), (True, RequestError)])
def test_what_no_layout_can_be_made_of_is_refused(turns, reason, reply, error):
    with pytest.raises(error, match=reason):
        check_turns(Conversation(turns=turns), reply=reply)


def test_what_can_be_laid_out_passes():
    parts = (Text(text="draw"), ReadImage(picture=PICTURE))
    answer = Turn(role="assistant", parts=(DrawnImage(picture=PICTURE),), learn=True)
    check_turns(Conversation(turns=(Turn(role="user", parts=parts), answer)), reply=False)


def test_only_a_request_is_told_what_to_do():
    with pytest.raises(SkipSample, match=r"^Too long$"):
        refuse("Too long", "shorten it.", reply=False)
    with pytest.raises(RequestError, match=r"^Too long: shorten it\.$"):
        refuse("Too long", "shorten it.", reply=True)
