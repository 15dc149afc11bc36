"""Two models side by side in a browser."""

LEFT, RIGHT = "#compare-0", "#compare-1"


def test_both_models_stream_the_same_question_at_the_same_time(visit):
    page = visit()
    page.go_to("compare")
    assert page.tab.value("document.querySelector('#compare-first input').value") == "alpha"
    assert page.tab.value("document.querySelector('#compare-second input').value") == "beta"
    page.ask("slow", name="compare")
    page.wait_reply("w1 ", LEFT)
    page.wait_reply("w1 ", RIGHT)
    page.click("#compare-stop")
    page.wait_reply("Stopped.", LEFT)
    page.wait_reply("Stopped.", RIGHT)
    page.wait_idle("compare")
    page.ask("hello", name="compare")
    page.wait_reply("alpha heard hello | 3 turns", LEFT)
    page.wait_reply("beta heard hello | 3 turns", RIGHT)
    page.wait_idle("compare")
    page.click("#compare-clear")
    page.wait("document.querySelectorAll('#compare-0 .message, #compare-1 .message').length === 0")


def test_one_that_fails_leaves_the_other(visit):
    page = visit()
    page.go_to("compare")
    page.ask("only beta: hello", name="compare")
    page.wait_reply("The question was refused. The server says: I am alpha.", LEFT)
    page.wait_reply("beta heard only beta: hello", RIGHT)
