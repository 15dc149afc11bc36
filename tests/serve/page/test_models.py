"""Which models there are: asked for once in a while, for each key."""

from mllm_npu.serve.page.client import Model
from mllm_npu.serve.page.models import FRESH_SECONDS, MOST_KEYS, Models
from mllm_npu.serve.page.trouble import AskError, Trouble

LISTED = (Model(name="a"), Model(name="b", draws=False))


def make(make_desk, listed=LISTED):
    now = [0.0]
    controller = make_desk(models=listed).controller
    return Models(controller, clock=lambda: now[0]), controller, now


def test_what_was_just_heard_is_not_asked_again(make_desk, run):
    models, controller, now = make(make_desk)
    assert run(models.look()).models == LISTED
    assert run(models.look()).models == LISTED
    assert controller.keys == [""]
    now[0] = FRESH_SECONDS
    run(models.look())
    assert controller.keys == ["", ""]


def test_each_key_is_asked_with_by_itself_and_not_for_ever_remembered(make_desk, run):
    models, controller, _ = make(make_desk)
    for number in range(MOST_KEYS + 2):
        run(models.look(key=f"key {number}"))
    assert len(set(controller.keys)) == MOST_KEYS + 2
    assert len(models._listed) <= MOST_KEYS


def test_trouble_is_kept_for_a_while_too(make_desk, run):
    models, controller, _ = make(make_desk, AskError(Trouble.AWAY, "http://x"))
    for _ in range(2):
        listed = run(models.look())
        assert listed.error.trouble is Trouble.AWAY
        assert listed.models == ()
    assert len(controller.keys) == 1


def test_only_what_is_known_not_to_draw_does_not(make_desk, run):
    models, _, _ = make(make_desk)
    assert models.draws("b")
    run(models.look())
    assert models.draws("a")
    assert not models.draws("b")
    assert models.draws("unknown")
