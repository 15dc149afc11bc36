import pytest
from PIL import Image

from mllm_npu.errors import DataError
from mllm_npu.evaluate.question import answer_text, cut_answer
from mllm_npu.processing.conversation import Conversation, DrawnImage, ReadImage, Text, Turn

PICTURE = Image.new("RGB", (2, 2))


def test_a_chat_is_cut_before_the_last_turn_of_the_assistant():
    question = Turn(role="user", parts=(ReadImage(picture=PICTURE), Text(text="Which?")))
    first = Turn(role="assistant", parts=(Text(text="seven"),), learn=True)
    again = Turn(role="user", parts=(Text(text="Draw it."),))
    last = Turn(
        role="assistant", parts=(Text(text=" Here. "), DrawnImage(picture=PICTURE)), learn=True
    )
    whole = Conversation(turns=(question, first, again, last), key="k", task="instruction")
    open_conversation, answer = cut_answer(whole)
    assert open_conversation == Conversation(
        turns=(question, first, again), key="k", task="instruction"
    )
    assert answer == last.parts
    assert answer_text(answer) == "Here."


def test_a_document_is_cut_before_what_is_learnt_at_its_end():
    parts = (
        ReadImage(picture=PICTURE),
        Text(text="the caption:", learn=False),
        Text(text=" a seven"),
        DrawnImage(picture=PICTURE),
    )
    document = Turn(role="document", parts=parts, learn=True)
    open_conversation, answer = cut_answer(Conversation(turns=(document,)))
    assert open_conversation.turns[0].parts == parts[:2]
    assert answer == parts[2:]


@pytest.mark.parametrize(
    "turns",
    [
        (Turn(role="user", parts=(Text(text="a"),)),),
        (Turn(role="assistant", parts=(Text(text="a"),), learn=True),),
        (Turn(role="document", parts=(Text(text="a"),), learn=True),),
        (Turn(role="document", parts=(Text(text="a"),)),),
    ],
)
def test_without_question_and_answer_there_is_nothing_to_ask(turns):
    with pytest.raises(DataError, match=r"'lost'.*no question followed by an answer"):
        cut_answer(Conversation(turns=turns, key="lost"))
