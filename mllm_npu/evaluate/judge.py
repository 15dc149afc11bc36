"""Ask a judge, a language model behind an OpenAI-compatible address, and never the same twice."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mllm_npu.errors import ConfigError, DataError, JudgeError

if TYPE_CHECKING:
    import httpx

_MOST_WAIT = 60.0
"""Seconds between two tries, at most."""

_PASSING = frozenset({408, 409, 425, 429})
"""Refusals that pass (timeout, conflict, too early, too many), as failures from 500 on do."""


class Judge:
    """Grades replies: one prompt, one text, at temperature 0.

    What it said is kept in a file, so that a run that goes on asks only what is new.

    Args:
        url: of the service up to its version, such as http://127.0.0.1:8000/v1.
        model: its name there.
        cache: file of what was said, one JSON object a line; it is made where it is not there.
        key_env: environment variable that holds the key; none is sent where it is not set.
        max_tokens: of an answer.
        attempts: how often a question is put before the run gives up.
        wait: seconds before the second try; twice as many before each further one.
        timeout: seconds without a sign of the judge that make a try fail.

    Raises:
        ConfigError: an address or a number that makes no sense.
    """

    def __init__(
        self,
        *,
        url: str,
        model: str,
        cache: str | Path,
        key_env: str = "OPENAI_API_KEY",
        max_tokens: int = 16,
        attempts: int = 5,
        wait: float = 2.0,
        timeout: float = 60.0,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"A judge at {url!r} was asked for. Give its address with http:// or https://, up "
                "to its version: http://127.0.0.1:8000/v1."
            )
        if attempts < 1 or max_tokens < 1 or wait < 0 or timeout <= 0:
            raise ConfigError(
                f"A judge with {attempts} attempts, {max_tokens} tokens, wait {wait} and timeout "
                f"{timeout} was asked for. Give at least one attempt, one token, no negative wait "
                "and a timeout above 0."
            )
        self.url, self.model, self.cache = url.rstrip("/"), model, Path(cache)
        self._key_env, self._max_tokens = key_env, max_tokens
        self._attempts, self._wait, self._timeout = attempts, wait, timeout
        self._said: dict[str, str] = {}
        self._num_read = 0
        self._client: httpx.Client | None = None

    def ask(self, prompt: str) -> str:
        """What the judge says to a prompt, from the file where it has said so before.

        Ranks that grade the same replies wait for each other, so that each question is put once.

        Raises:
            JudgeError: it does not answer, or refuses.
            DataError: the file cannot be used.
            ConfigError: httpx is missing.
        """
        key = hashlib.sha256(json.dumps([self.model, prompt]).encode()).hexdigest()
        if key in self._said:
            return self._said[key]
        try:
            self.cache.parent.mkdir(parents=True, exist_ok=True)
            with self.cache.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                is_torn = self._read(file)
                if key not in self._said:
                    self._said[key] = self._request(prompt)
                    row = {"key": key, "model": self.model, "reply": self._said[key]}
                    # A line that a crash left half-written is closed first.
                    file.write(b"\n" * is_torn + json.dumps(row).encode() + b"\n")
        except OSError as error:
            raise DataError(
                f"What the judge says was to be kept in {self.cache}: {error}. Make it writable, "
                "or choose another cache."
            ) from error
        return self._said[key]

    def close(self) -> None:
        """Let the connection go; a later question opens another."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _request(self, prompt: str) -> str:
        httpx = _import_httpx()
        if self._client is None:
            key = os.environ.get(self._key_env)
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            self._client = httpx.Client(headers=headers, timeout=self._timeout)
        why, told = "", 0.0
        for attempt in range(self._attempts):
            if attempt:
                time.sleep(min(max(self._wait * 2 ** (attempt - 1), told), _MOST_WAIT))
            try:
                reply = self._client.post(f"{self.url}/chat/completions", json=self._body(prompt))
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                why = f"{type(error).__name__}: {error}"
                continue
            text = _text_of(reply.text) if reply.is_success else None
            if text is not None:
                return text
            why, told = f"status {reply.status_code}: {reply.text[:200]!r}", _told_wait(reply)
            if 400 <= reply.status_code < 500 and reply.status_code not in _PASSING:
                raise self._failure(f"refuses ({why}); check url, model and {self._key_env}")
        raise self._failure(f"gave no answer in {self._attempts} attempts ({why})")

    def _failure(self, what: str) -> JudgeError:
        return JudgeError(
            f"The judge {self.model!r} at {self.url} {what}. The answers are kept, run the same "
            "command again."
        )

    def _body(self, prompt: str) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": self._max_tokens,
        }

    def _read(self, file: BinaryIO) -> bool:
        """Take in what was added since; tells whether the last line lacks its end."""
        file.seek(self._num_read)
        *lines, rest = file.read().split(b"\n")
        for line in lines:
            self._num_read += len(line) + 1
            with contextlib.suppress(ValueError, KeyError, TypeError):
                row = json.loads(line)
                self._said[str(row["key"])] = str(row["reply"])
        return rest != b""


def _import_httpx() -> Any:
    try:
        import httpx  # noqa: PLC0415 - in an extra
    except ModuleNotFoundError as error:
        raise ConfigError(
            "A judge is asked by httpx, which is not installed. Install it: "
            "pip install 'mllm-npu[serve]'"
        ) from error
    return httpx


def _told_wait(reply: httpx.Response) -> float:
    """Seconds that the judge asks to wait for; 0 where it says nothing that is a number."""
    told = reply.headers.get("retry-after", "")
    return float(told) if told.isdigit() else 0.0


def _text_of(body: str) -> str | None:
    """The text of a chat completion; None of anything else."""
    try:
        text = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return text if isinstance(text, str) else None
