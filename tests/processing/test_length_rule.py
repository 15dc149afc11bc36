"""The rule of a processor says what stands around texts and pictures, in tokens."""

from dataclasses import FrozenInstanceError, fields

import pytest

from mllm_npu.batch import IGNORED_LABEL
from mllm_npu.processing.chat_template import INSTRUCT, ChatTemplate
from mllm_npu.processing.conversation import Conversation, DrawnImage, ReadImage, Text, Turn
from mllm_npu.processing.length_rule import LengthRule

FULL = {
    "system": "Be kind.",
    "system_prefix": "system: ",
    "system_suffix": "\n\n",
    "user_prefix": "user asks: ",
    "user_suffix": " end\n",
    "assistant_prefix": "says: ",
    "assistant_suffix": " done",
}


def talk(*turns):
    return Conversation(
        turns=tuple(
            Turn(role=role, parts=(part,), learn=role in ("assistant", "document"))
            for role, part in turns
        )
    )


def text(words="seven"):
    return Text(text=words)


def test_without_frames_only_begin_end_and_pictures_are_left(make_processor):
    assert make_processor(chat_template=ChatTemplate()).length_rule == LengthRule(
        opening=1,
        default_system=0,
        system_frame=0,
        user_frame=0,
        assistant_frame=1,
        document_end=1,
        read_tile=4 + 2,
        drawn_picture=6 + 2,
        learnt_answer=1,
    )


@pytest.mark.parametrize("learn_suffix", [True, False])
@pytest.mark.parametrize("close_with_eos", [True, False])
def test_each_number_is_the_tokens_of_its_strings(make_processor, learn_suffix, close_with_eos):
    if not learn_suffix and not close_with_eos:
        pytest.skip("no such template: nothing would end an answer")
    template = ChatTemplate(**FULL, learn_suffix=learn_suffix, close_with_eos=close_with_eos)
    processor = make_processor(chat_template=template)
    count, rule = processor.count_tokens, processor.length_rule
    system = count("system: ") + count("\n\n")
    assert rule.system_frame == system
    assert rule.default_system == system + count("Be kind.")
    assert rule.user_frame == count("user asks: ") + count(" end\n")
    end = int(close_with_eos)
    assert rule.assistant_frame == count("says: ") + count(" done") + end
    assert rule.learnt_answer == count(" done") * learn_suffix + end


@pytest.mark.parametrize(
    "template", [ChatTemplate(), INSTRUCT, ChatTemplate(**FULL), ChatTemplate(system="Be kind.")]
)
def test_each_number_is_what_encoding_adds(make_processor, picture, template):
    processor = make_processor(chat_template=template)
    rule, words = processor.length_rule, processor.count_tokens("seven")

    def length(*turns):
        return processor.encode(talk(*turns)).num_tokens

    document = length(("document", text()))
    assert document == rule.opening + words + rule.document_end
    chat = length(("user", text()), ("assistant", text()))
    frames = rule.user_frame + rule.assistant_frame
    assert chat == rule.opening + rule.default_system + frames + 2 * words
    again = length(*[("user", text()), ("assistant", text())] * 2)
    assert again - chat == frames + 2 * words
    own = length(("system", text()), ("user", text()), ("assistant", text()))
    assert own == rule.opening + rule.system_frame + frames + 3 * words
    tiles = processor.any_resolution.num_tiles(16, 8)
    assert tiles > 1
    read = length(("document", ReadImage(picture=picture(16, 8))), ("document", text()))
    assert read == document + tiles * rule.read_tile
    drawn = length(("document", DrawnImage(picture=picture(16, 8))), ("document", text()))
    assert drawn == document + rule.drawn_picture


@pytest.mark.parametrize("learn_suffix", [True, False])
def test_what_is_learnt_around_an_answer(make_processor, learn_suffix):
    template = ChatTemplate(**FULL, learn_suffix=learn_suffix)
    processor = make_processor(chat_template=template)
    sample = processor.encode(talk(("user", text()), ("assistant", text("two"))))
    learnt = int((sample.labels != IGNORED_LABEL).sum())
    assert learnt == processor.count_tokens("two") + processor.length_rule.learnt_answer


def test_it_follows_the_slots(make_processor):
    rule = make_processor(num_read_tokens=7, num_drawn_tokens=0).length_rule
    assert (rule.read_tile, rule.drawn_picture) == (9, 2)


def test_it_is_a_value(make_processor):
    first, second = make_processor().length_rule, make_processor().length_rule
    assert first == second
    assert first != make_processor(chat_template=INSTRUCT).length_rule
    assert {type(getattr(first, field.name)) for field in fields(first)} == {int}
    with pytest.raises(FrozenInstanceError):
        first.opening = 2


def test_what_stands_behind_pictures_and_before_answers_is_counted(make_processor):
    plain = ChatTemplate(user_prefix="u ", assistant_prefix="a:")
    more = ChatTemplate(
        user_prefix="u ", assistant_prefix="a:", assistant_gap=" ", picture_suffix="\n"
    )
    first, second = (make_processor(chat_template=each).length_rule for each in (plain, more))
    assert (first.read_picture, second.read_picture) == (0, 1)
    assert second.assistant_frame == first.assistant_frame + 1
    assert second.learnt_answer == first.learnt_answer + 1
    # Plans are told apart by how a rule is written; those made before stay what they were.
    assert "read_picture" not in repr(second)
