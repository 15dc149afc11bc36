"""The real lm-eval asks a tiny model, and finds what its own model for transformers finds."""

import json
import math

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'lm-eval>=0.4.13'")

import torch
from launching import launch
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from PIL import Image
from play_lm_eval import QUESTIONS, TEXTS, evaluate_share, make_engine, write_tasks
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForCausalLM

from mllm_npu.errors import ConfigError, TooLongError
from mllm_npu.evaluate.lm_eval_model import LmEvalModel
from mllm_npu.inference.options import GenerationOptions
from mllm_npu.models.tiny import LANGUAGE_CONFIGS
from mllm_npu.processing.conversation import Conversation, Text, Turn, ask

LENGTH = 40
"""So short that half the prompts are too long."""


@pytest.fixture(autouse=True)
def no_report_of_the_machine(monkeypatch):
    """lm-eval asks half a dozen programs for it, which takes longer than all else."""
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


@pytest.fixture(scope="module")
def engine():
    return make_engine()


@pytest.fixture
def lm(engine):
    return LmEvalModel(engine=engine)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def reference(engine):
    """lm-eval's own model on the same weights; makes one that takes so many tokens."""
    language_model, tokenizer = engine.model.language_model, engine.processor.tokenizer
    values = {**LANGUAGE_CONFIGS["llama"], "vocab_size": language_model.vocab_size}
    plain = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values)).eval()
    plain.load_state_dict(language_model.causal_lm.state_dict())
    # As released tokenizers of the family do.
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return lambda max_length, **options: HFLM(
        pretrained=plain, tokenizer=tokenizer, max_length=max_length, device="cpu", **options
    )


def ask_for(kind, *arguments):
    return [
        Instance(request_type=kind, doc={}, arguments=each, idx=0, metadata=("task", 0, 1))
        for each in arguments
    ]


def document(*pieces):
    return Conversation(
        turns=(Turn(role="document", parts=tuple(Text(text=piece) for piece in pieces)),)
    )


def pairs():
    """Prompts of all lengths with continuations of all kinds."""
    prompts = ["", "Which", "Read the digits.\n", "Draw a seven. ", *TEXTS, " "]
    continuations = [" seven", " the sum of the digits", "?", " seven", "\nWhat is 12?"]
    return [(prompt, continuation) for prompt in prompts for continuation in continuations]


def same(found, wanted):
    for (logprob, is_greedy), (value, greedy) in zip(found, wanted, strict=True):
        assert logprob == pytest.approx(value, abs=1e-4)
        assert is_greedy == greedy
    return True


@pytest.mark.parametrize("max_length", [160, LENGTH])
def test_likelihoods_are_those_of_the_reference(engine, reference, max_length):
    requests = ask_for("loglikelihood", *pairs())
    wanted = reference(max_length, add_bos_token=True).loglikelihood(requests, disable_tqdm=True)
    lm = LmEvalModel(engine=engine, max_length=max_length)
    assert same(lm.loglikelihood(requests, disable_tqdm=True), wanted)


@pytest.mark.parametrize("max_length", [160, LENGTH, 3])
def test_perplexity_is_that_of_the_reference(engine, reference, max_length):
    requests = ask_for("loglikelihood_rolling", *((text,) for text in [*TEXTS, "a", ""]))
    plain = reference(max_length, add_bos_token=False)
    wanted = plain.loglikelihood_rolling(requests, disable_tqdm=True)
    lm = LmEvalModel(engine=engine, max_length=max_length)
    found = lm.loglikelihood_rolling(requests, disable_tqdm=True)
    assert found == pytest.approx(wanted, abs=1e-3)
    assert found[-1] == 0.0


def test_replies_are_those_of_the_reference(engine, reference):
    wishes = [
        {"until": ["e"], "max_gen_toks": 12},
        {"until": [], "max_gen_toks": 9, "temperature": 0.0, "do_sample": False},
        {"until": "</s>", "max_new_tokens": 5, "temperature": 0.7, "do_sample": False},
    ]
    requests = ask_for("generate_until", *((text, wish) for text in TEXTS for wish in wishes))
    wanted = reference(160, add_bos_token=True).generate_until(requests, disable_tqdm=True)
    lm = LmEvalModel(engine=engine)
    assert lm.generate_until(requests, disable_tqdm=True) == wanted


def test_a_prompt_that_is_too_long_to_reply_to_loses_its_beginning(engine, caplog):
    lm = LmEvalModel(engine=engine, max_length=LENGTH)
    wish = {"until": [], "max_gen_toks": 16}
    long = TEXTS[-1]
    [found] = lm.generate_until(ask_for("generate_until", (long, wish)), disable_tqdm=True)
    options = GenerationOptions(max_new_tokens=16, images="forbid")
    ends = (long[start:] for start in range(len(long)))
    fits = next(end for end in ends if engine.fits(document(end), 160 - LENGTH + 16))
    assert found == engine.reply(document(fits), options).text
    assert "1 prompts are longer than 40 tokens" in caplog.text
    with pytest.raises(TooLongError, match="--gen_kwargs max_gen_toks"):
        lm.generate_until(ask_for("generate_until", (long, {"max_gen_toks": 99})))
    with pytest.raises(TooLongError, match="the model takes 40"):
        lm.loglikelihood(ask_for("loglikelihood", ("a", long)), disable_tqdm=True)


def test_a_sampled_reply_has_a_seed_of_its_own(engine):
    wish = {"do_sample": True, "temperature": 5.0, "max_gen_toks": 8, "until": []}
    requests = ask_for("generate_until", *[(TEXTS[0], wish)] * 3)
    lm = LmEvalModel(engine=engine, seed=7)
    found = lm.generate_until(requests, disable_tqdm=True)
    options = [
        GenerationOptions(max_new_tokens=8, temperature=5.0, seed=seed, images="forbid")
        for seed in (7, 8, 9)
    ]
    assert found == [engine.reply(document(TEXTS[0]), each).text for each in options]
    assert len(set(found)) == 3


def test_a_spelt_control_token_is_read_as_letters(engine, lm, caplog):
    text = "the <img> tag</s>"
    requests = ask_for("loglikelihood", (text, " is <patch>"))
    [(logprob, _)] = lm.loglikelihood(requests, disable_tqdm=True)
    ids = [
        number
        for piece in ("the <", "img> tag<", "/s>", " is <", "patch>")
        for number in engine.processor.encode_text(piece)
    ]
    num_weighed = sum(len(engine.processor.encode_text(piece)) for piece in (" is <", "patch>"))
    assert logprob == pytest.approx(plain_logprob(engine, ids, num_weighed), abs=1e-4)
    assert "spell control tokens (</s> <img> <patch>)" in caplog.text
    caplog.clear()
    lm.loglikelihood(ask_for("loglikelihood", ("a", " b")), disable_tqdm=True)
    assert caplog.text == ""


def plain_logprob(engine, ids, num_weighed):
    """The slow truth: one forward pass over the begin token and a text."""
    model, whole = engine.model.language_model, [engine.processor.tokenizer.bos_token_id, *ids]
    with torch.inference_mode():
        hidden_TD = model(
            model.embed(torch.tensor(whole)),
            position_ids_T=torch.arange(len(whole)),
            sequence_ends=[len(whole)],
        )
        logprobs_TV = torch.log_softmax(model.logits(hidden_TD).float(), -1)
    each = logprobs_TV[:-1].gather(1, torch.tensor(ids)[:, None])[:, 0]
    return float(each[-num_weighed:].sum())


def test_a_chat_is_laid_out_as_a_conversation(engine, lm):
    history = [
        {"role": "system", "content": "You see <s>."},
        {"role": "user", "content": "Which digit?"},
    ]
    asked = Conversation(
        turns=(
            Turn(role="system", parts=(Text(text="You see <"), Text(text="s>."))),
            Turn(role="user", parts=(Text(text="Which digit?"),)),
        )
    )
    prompt = lm.apply_chat_template(history)
    weighed = lm.loglikelihood(ask_for("loglikelihood", (prompt, "A"), (prompt, "B")))
    [(_, wanted)] = engine.weigh([(asked, ("A", "B"))])
    assert same(weighed, [(each.logprob, each.is_greedy) for each in wanted])
    wish = {"until": [], "max_gen_toks": 6}
    begun = lm.apply_chat_template(
        [*history, {"role": "assistant", "content": "It is"}], add_generation_prompt=False
    )
    turns = (*asked.turns, Turn(role="assistant", parts=(Text(text="It is"),)))
    options = GenerationOptions(max_new_tokens=6, images="forbid")
    found = lm.generate_until(ask_for("generate_until", (prompt, wish), (begun, wish)))
    assert found == [
        engine.reply(conversation, options).text
        for conversation in (asked, Conversation(turns=turns))
    ]
    assert json.loads(lm.chat_template(True))["user"] == ["USER: ", "\n"]
    assert lm.chat_template(False) is None
    with pytest.raises(ConfigError, match="without a name"):
        lm.chat_template("default")


def test_a_model_is_made_of_its_arguments(engine, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="a trained model was asked for"):
        LmEvalModel.create_from_arg_string(f"run={tmp_path},device=cpu")
    (tmp_path / "model.yaml").touch()
    monkeypatch.setattr(engine, "max_batch", 5)
    part = "mllm_npu.evaluate.lm_eval_model"
    monkeypatch.setattr(f"{part}.load_engine", lambda folder, device: (engine, (folder, device)))
    monkeypatch.setattr(f"{part}.list_model_files", lambda folder, config: [folder / "model.yaml"])
    made = LmEvalModel.create_from_arg_string(f"run={tmp_path},max_length=50,batch_size=9,seed=4")
    assert (made.max_length, made.max_gen_toks, engine.max_batch) == (50, 25, 9)
    assert len(made.get_model_info()["model_sha"]) == 16
    assert made.tokenizer_name.startswith("mllm_npu-")
    assert (made.rank, made.world_size, made.device, made.eot_token_id) == (0, 1, engine.device, 2)
    assert LmEvalModel(engine=engine).max_gen_toks == 80


def test_one_prompt_is_asked_once(engine, lm, monkeypatch):
    asked = []
    weigh = engine.weigh
    monkeypatch.setattr(engine, "weigh", lambda each: asked.extend(each) or weigh(each))
    requests = ask_for(
        "loglikelihood", *[(text, choice) for text in TEXTS for choice in (" a", " b", " a")]
    )
    found = lm.loglikelihood(requests, disable_tqdm=True)
    assert [len(continuations) for _, continuations in asked] == [2] * len(TEXTS)
    assert found[0::3] == found[2::3]


def test_answers_are_kept_for_lm_eval(lm, monkeypatch):
    kept = []
    monkeypatch.setattr(lm.cache_hook, "add_partial", lambda *each: kept.append(each))
    greedy, sampled = {"max_gen_toks": 2}, {"max_gen_toks": 2, "temperature": 1.0}
    [answer] = lm.loglikelihood(ask_for("loglikelihood", ("a", " b")))
    [total] = lm.loglikelihood_rolling(ask_for("loglikelihood_rolling", ("a b",)))
    texts = lm.generate_until(ask_for("generate_until", ("a", greedy), ("a", sampled)))
    assert kept == [
        ("loglikelihood", ("a", " b"), answer),
        ("loglikelihood_rolling", ("a b",), total),
        ("generate_until", ("a", greedy), texts[0]),
    ]


def evaluate(lm, tasks, *names, **options):
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    return simple_evaluate(
        lm, tasks=list(names), task_manager=manager, bootstrap_iters=0, **options
    )


@pytest.mark.parametrize("max_batch", [1, 64])
def test_lm_eval_runs_its_tasks(engine, tasks, monkeypatch, max_batch):
    monkeypatch.setattr(engine, "max_batch", max_batch)
    lm = LmEvalModel(engine=engine, fingerprint="abc")
    report = evaluate(lm, tasks, "tiny_choice", "tiny_reply", "tiny_text")
    weighed = report["samples"]["tiny_choice"]
    right = 0
    for sample, question in zip(weighed, QUESTIONS, strict=True):
        values = []
        for response, choice in zip(sample["filtered_resps"], question["choices"], strict=True):
            ids = engine.processor.encode_text(f"{question['question']} {choice}")
            before = len(engine.processor.encode_text(question["question"]))
            values.append(plain_logprob(engine, ids, len(ids) - before))
            assert response[0] == pytest.approx(values[-1], abs=1e-4)
        right += values.index(max(values)) == question["answer"]
    assert report["results"]["tiny_choice"]["acc,none"] == pytest.approx(right / len(QUESTIONS))
    options = GenerationOptions(max_new_tokens=8, stop=("\n",), images="forbid")
    assert [sample["filtered_resps"] for sample in report["samples"]["tiny_reply"]] == [
        [engine.reply(document(question["question"]), options).text] for question in QUESTIONS
    ]
    texts = [question["text"] for question in QUESTIONS]
    ids = [engine.processor.encode_text(text) for text in texts]
    total = sum(plain_logprob(engine, each, len(each)) for each in ids)
    num_bytes = sum(len(text.encode()) for text in texts)
    found = report["results"]["tiny_text"]["bits_per_byte,none"]
    assert found == pytest.approx(-total / num_bytes / math.log(2), rel=1e-5)
    assert report["config"]["model_sha"] == "abc"
    assert report["config"]["model_num_parameters"] > 1000
    assert report["tokenizer_bos_token"] == ["<s>", "1"]
    assert report["max_length"] == 160


def test_lm_eval_applies_the_chat_template(engine, tasks):
    report = evaluate(
        LmEvalModel(engine=engine),
        tasks,
        "tiny_choice",
        apply_chat_template=True,
        system_instruction="Answer.",
        num_fewshot=1,
        limit=2,
    )
    for sample in report["samples"]["tiny_choice"]:
        messages = json.loads(sample["arguments"][0][0].removeprefix("\x1e"))
        assert [each["role"] for each in messages] == ["system", "user", "assistant", "user"]
        turns = tuple(
            Turn(role=each["role"], parts=(Text(text=each["content"]),)) for each in messages
        )
        choices = [continuation for _, continuation in sample["arguments"]]
        [(_, wanted)] = engine.weigh([(Conversation(turns=turns), choices)])
        assert [value for value, _ in sample["filtered_resps"]] == pytest.approx(
            [each.logprob for each in wanted], abs=1e-4
        )


def test_lm_eval_shows_pictures(engine, tasks):
    report = evaluate(LmEvalModel(engine=engine), tasks, "tiny_picture", "tiny_picture_choice")
    pictures = [Image.new("RGB", (16, 16), each["colour"]) for each in QUESTIONS]
    options = GenerationOptions(max_new_tokens=8, images="forbid")
    questions = [
        Conversation(
            turns=(
                Turn(role="document", parts=(*ask("", [picture]).turns[0].parts, Text(text=text))),
            )
        )
        for picture, text in zip(pictures, (each["question"] for each in QUESTIONS), strict=True)
    ]
    replies = [sample["filtered_resps"] for sample in report["samples"]["tiny_picture"]]
    assert replies == [[engine.reply(question, options).text] for question in questions]
    found = report["samples"]["tiny_picture_choice"]
    for sample, question, each in zip(found, questions, QUESTIONS, strict=True):
        [(_, wanted)] = engine.weigh([(question, [f" {choice}" for choice in each["choices"]])])
        assert [value for value, _ in sample["filtered_resps"]] == pytest.approx(
            [weighed.logprob for weighed in wanted], abs=1e-4
        )


@pytest.mark.slow
def test_ranks_share_the_documents(engine, tasks, tmp_path):
    first, second = launch(evaluate_share, size=2, folder=tmp_path, tasks=tasks)
    alone = evaluate(LmEvalModel(engine=engine), tasks, "tiny_choice", "tiny_reply", "tiny_text")
    assert second is None
    for name, values in first.items():
        assert values == pytest.approx(
            {key: alone["results"][name][key] for key in values}, abs=1e-6
        ), name
