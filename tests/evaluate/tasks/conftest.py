"""Replies to all examples of a task: written ones, and letters by chance."""

from dataclasses import replace
from random import Random

import pytest

from mllm_npu.evaluate.task import Record
from mllm_npu.inference.events import Likelihood


@pytest.fixture(scope="session")
def write_replies(fakes):
    """Records of a task whose replies are what a function says to each example."""

    def write(task, say, examples=None):
        replies = [
            (example, fakes.make_reply(say(example))) for example in examples or task.examples()
        ]
        return [
            Record(
                example=example,
                reply=reply,
                understood=task.explain(example, reply),
                score=task.score(example, reply),
            )
            for example, reply in replies
        ]

    return write


@pytest.fixture(scope="session")
def guess_letters(fakes):
    """Share of questions that are right when the likeliest choice is a matter of chance."""

    def guess(task, examples, seed):
        random, right = Random(seed), 0.0
        for example in examples:
            weighed = tuple(
                Likelihood(text=text, logprob=-random.random(), num_tokens=1, is_greedy=False)
                for text in example.choices
            )
            right += task.score(example, replace(fakes.make_reply(), choices=weighed))
        return right / len(examples)

    return guess


@pytest.fixture(scope="session")
def is_chance():
    """Whether a share of so many questions with four choices is within 3 standard errors of 1/4."""
    return lambda share, number: abs(share - 0.25) < 3 * (0.25 * 0.75 / number) ** 0.5
