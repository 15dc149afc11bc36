import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mllm_npu.errors import ConfigError, DataError, JudgeError
from mllm_npu.evaluate.judge import Judge


def completion(text):
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})


class Service:
    """A judge on the loopback that says what it was told to, one saying after another."""

    def __init__(self):
        self.sayings, self.asked = [], []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.asked.append((self.path, dict(self.headers), body))
                status, text, *headers = service.sayings.pop(0)
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def service():
    service = Service()
    yield service
    service.stop()


@pytest.fixture
def make_judge(service, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    judges = []

    def make(**changes):
        values = {
            "url": service.url,
            "model": "fair",
            "cache": tmp_path / "kept" / "judge.jsonl",
            "wait": 0.0,
        }
        judges.append(Judge(**{**values, **changes}))
        return judges[-1]

    yield make
    for judge in judges:
        judge.close()


def test_one_question_is_one_chat_completion_at_temperature_zero(service, make_judge, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    service.sayings = [completion("0.5")]
    assert make_judge(key_env="JUDGE_KEY", max_tokens=3).ask("How right?") == "0.5"
    path, headers, body = service.asked[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body == {
        "model": "fair",
        "messages": [{"role": "user", "content": "How right?"}],
        "temperature": 0,
        "max_tokens": 3,
    }


def test_without_a_key_none_is_sent(service, make_judge, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    service.sayings = [completion("1.0")]
    make_judge().ask("How right?")
    assert "Authorization" not in service.asked[0][1]


def test_nothing_is_asked_twice_not_even_in_a_later_run(service, make_judge):
    service.sayings = [completion("0.1"), completion("0.2")]
    first = make_judge()
    assert [first.ask("a"), first.ask("a"), first.ask("b")] == ["0.1", "0.1", "0.2"]
    later = make_judge()
    assert [later.ask("b"), later.ask("a")] == ["0.2", "0.1"]
    assert len(service.asked) == 2


def test_another_model_is_asked_anew(service, make_judge):
    service.sayings = [completion("0.1"), completion("0.9")]
    assert make_judge().ask("a") == "0.1"
    assert make_judge(model="fairer").ask("a") == "0.9"


def test_a_half_written_line_costs_one_question_and_no_later_one(service, make_judge):
    service.sayings = [completion("0.1"), completion("0.2"), completion("line\u2028end")]
    judge = make_judge()
    judge.ask("a")
    judge.ask("b")
    text = judge.cache.read_text()
    judge.cache.write_text(text[: len(text) - 20])
    later = make_judge()
    assert later.ask("a") == "0.1"
    assert later.ask("b") == "line\u2028end"
    assert make_judge().ask("b") == "line\u2028end"
    assert len(service.asked) == 3


def test_judges_that_share_a_file_put_a_question_once(service, make_judge):
    """As ranks do that grade the same replies at the same time."""
    service.sayings = [completion("0.4")] * 4
    heard = []

    def grade(judge):
        heard.extend(judge.ask(f"question {number}") for number in range(4))

    ranks = [threading.Thread(target=grade, args=(make_judge(),)) for _ in range(3)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    assert heard == ["0.4"] * 12
    assert len(service.asked) == 4


def test_a_file_that_cannot_be_used_is_told(make_judge, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"kept in .*judge.jsonl.*another cache"):
        make_judge(cache=tmp_path / "file" / "judge.jsonl").ask("a")


def test_a_failure_that_passes_is_tried_again(service, make_judge):
    service.sayings = [(500, "oh"), (429, "slow", ("Retry-After", "0")), completion("0.7")]
    assert make_judge().ask("a") == "0.7"
    assert len(service.asked) == 3


def test_the_judge_may_ask_for_a_longer_wait_within_reason(service, make_judge, monkeypatch):
    waits = []
    monkeypatch.setattr("mllm_npu.evaluate.judge.time.sleep", waits.append)
    service.sayings = [
        (429, "", ("Retry-After", "7")),
        (503, "", ("Retry-After", "Wed, 21 Oct 2026 07:28:00 GMT")),
        (429, "", ("Retry-After", "900")),
        completion("1"),
    ]
    make_judge(wait=2.0).ask("a")
    assert waits == [7.0, 4.0, 60.0]


def test_a_refusal_is_told_at_once(service, make_judge):
    service.sayings = [(401, '{"error": "no such key"}')]
    with pytest.raises(JudgeError, match=r"(?s)401.*no such key.*check url, model and OPENAI"):
        make_judge().ask("a")
    assert len(service.asked) == 1


@pytest.mark.parametrize(
    "garbage", ["<html>", "{}", '{"choices": []}', '{"choices": [{"message": {"content": null}}]}']
)
def test_what_is_no_chat_completion_is_no_answer(service, make_judge, garbage):
    service.sayings = [(200, garbage)] * 2
    judge = make_judge(attempts=2)
    with pytest.raises(JudgeError, match="gave no answer in 2 attempts"):
        judge.ask("a")
    assert judge.cache.read_bytes() == b""


def test_a_dead_judge_leaves_the_answers_and_says_how_to_go_on(make_judge):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        judge = make_judge(url=f"http://127.0.0.1:{port}/v1", attempts=2)
        with pytest.raises(JudgeError, match=r"(?s)ConnectError.*answers are kept, run the same"):
            judge.ask("a")


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "127.0.0.1:8000/v1"},
        {"attempts": 0},
        {"timeout": 0},
        {"wait": -1},
        {"max_tokens": 0},
    ],
)
def test_nonsense_is_refused_early(make_judge, wrong):
    with pytest.raises(ConfigError, match="was asked for"):
        make_judge(**wrong)


def test_without_httpx_it_says_what_to_install(make_judge, monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(ConfigError, match=r"mllm-npu\[serve\]"):
        make_judge().ask("a")
