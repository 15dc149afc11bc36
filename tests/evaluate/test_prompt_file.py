import json

import pytest

from mllm_npu.errors import ConfigError, DataError
from mllm_npu.evaluate.benchmark_files import BenchmarkFiles
from mllm_npu.evaluate.prompt_file import by_prompt, draw_examples, read_prompts
from mllm_npu.inference.options import GenerationOptions

OPTIONS = GenerationOptions(seed=100, max_new_tokens=64, image_steps=7)


def read(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    return read_prompts(BenchmarkFiles(tmp_path, layout="prompts"), name)


def draw(prompts, **changes):
    values = {
        "options": OPTIONS,
        "pictures_per_prompt": 2,
        "template": "Draw {prompt}.",
        "frame": "chat",
        "force": True,
    }
    return draw_examples(prompts, **{**values, **changes})


def test_a_line_of_text_is_a_prompt(tmp_path):
    prompts = read(tmp_path, "p.txt", "a red cup\n\n  {a} dog \n")
    assert [(p.name, p.text, p.seed, p.checks) for p in prompts] == [
        ("00000", "a red cup", None, None),
        ("00001", "{a} dog", None, None),
    ]


def test_a_line_of_json_may_say_more(tmp_path):
    include = [{"class": "dog", "count": 2}]
    rows = [
        {"prompt": "two dogs", "id": "dogs", "seed": 7, "tag": "counting", "include": include},
        {"prompt": "two dogs", "checks": {"include": include}},
        {"prompt": "anything"},
    ]
    first, second, third = read(tmp_path, "p.jsonl", "\n".join(map(json.dumps, rows)))
    assert (first.name, first.seed, first.tag, first.row) == ("dogs", 7, "counting", rows[0])
    assert first.checks == second.checks
    assert first.checks.include[0].count == 2
    assert (second.name, third.name, third.checks) == ("00001", "00002", None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "a dog"}, "a prompt is needed, there is None"),
        ({"prompt": "  "}, "a prompt is needed"),
        (["a dog"], "an object with prompt is needed"),
        ({"prompt": "a dog", "seed": -1}, "seed=-1"),
        ({"prompt": "a dog", "seed": True}, "seed=True"),
        ({"prompt": "a dog", "checks": []}, r"checks=\[\]"),
        ({"prompt": "a dog", "include": [{}]}, "include and exclude must be lists"),
    ],
)
def test_lines_of_another_form_are_refused_with_their_number(tmp_path, row, message):
    with pytest.raises(DataError, match=rf"p\.jsonl prompt 2: {message}"):
        read(tmp_path, "p.jsonl", json.dumps({"prompt": "first"}) + "\n" + json.dumps(row))


def test_a_file_without_prompts_or_with_a_name_twice_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"there is no prompt in p\.txt"):
        read(tmp_path, "p.txt", "\n")
    with pytest.raises(DataError, match="'a' is there twice"):
        read(tmp_path, "p.jsonl", '{"prompt": "x", "id": "a"}\n{"prompt": "y", "id": "a"}\n')


def test_every_picture_has_its_own_noise(tmp_path):
    examples = draw(read(tmp_path, "p.txt", "a cup\na dog\n"))
    assert [example.name for example in examples] == ["00000-0", "00000-1", "00001-0", "00001-1"]
    assert [example.options.seed for example in examples] == [100, 101, 102, 103]
    assert examples[2].facts == {"prompt": "a dog", "prompt_name": "00001"}
    [turn] = examples[2].conversation.turns
    assert (turn.role, turn.parts[0].text) == ("user", "Draw a dog.")
    assert {example.options.images for example in examples} == {"force"}
    assert {example.options.max_new_tokens for example in examples} == {1}
    assert {example.options.image_steps for example in examples} == {7}


def test_a_seed_of_the_file_comes_first(tmp_path):
    prompts = read(tmp_path, "p.jsonl", '{"prompt": "a"}\n{"prompt": "b", "seed": 5}\n')
    assert [example.options.seed for example in draw(prompts)] == [100, 101, 5, 6]
    fresh = draw(prompts, options=GenerationOptions(seed=None))
    assert [example.options.seed for example in fresh] == [0, 1, 5, 6]


def test_the_model_may_decide_when_it_draws(tmp_path):
    [example] = draw(
        read(tmp_path, "p.txt", "{x}"), force=False, frame="plain", pictures_per_prompt=1
    )
    assert (example.options.images, example.options.max_new_tokens) == ("auto", 64)
    assert example.conversation.turns[0].role == "document"
    assert example.conversation.turns[0].parts[0].text == "Draw {x}."


def test_what_cannot_be_asked_is_refused(tmp_path):
    prompts = read(tmp_path, "p.txt", "a cup")
    with pytest.raises(ConfigError, match=r"template='Draw it'.*\{prompt\} in it"):
        draw(prompts, template="Draw it")
    with pytest.raises(ConfigError, match="pictures_per_prompt=0"):
        draw(prompts, pictures_per_prompt=0)


def test_records_are_grouped_by_their_prompt(fakes):
    facts = [{"prompt_name": name} for name in ("b", "a", "b")]
    records = [fakes.make_record("x", "x", n, facts=fact) for n, fact in enumerate(facts)]
    alone = fakes.make_record("x", "x", 9)
    found = by_prompt([*records, alone])
    assert {name: len(own) for name, own in found.items()} == {"b": 2, "a": 1, "e9": 1}
    assert list(found) == ["b", "a", "e9"]
