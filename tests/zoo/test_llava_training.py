"""An imported model learns here as it would in transformers, and goes back trained."""

import io
import json
import tarfile

import pytest
import torch
from torch.nn import functional as F

from mllm_npu.cli import main
from mllm_npu.data.collate import BlankTile, collate
from mllm_npu.model_folder import load_model
from mllm_npu.processing.conversation import Conversation, ReadImage, Text, Turn
from mllm_npu.zoo.llava_import import import_llava
from mllm_npu.zoo.llava_names import hub_names, memory_name

QUICK = (
    "train=default",
    "parallel=single",
    "train.max_steps=3",
    "train.schedule.warmup_steps=0",
    "train.checkpoint_every=3",
    "train.optimizer.lr=0.01",
    "train.recorder.progress=false",
    "dataset.num_workers=0",
    "dataset.tokens_per_pack=900",
    "device=cpu",
    "preflight=false",
)
ANSWERS = ("a cat, and a dog.", "seven plus two is nine", "a helpful assistant")


@pytest.fixture
def shard(tmp_path, pictures):
    """Questions about pictures of different sizes, with answers."""
    target = tmp_path / "sft.tar"
    sizes = ("odd", "square", "very wide")
    with tarfile.open(target, "w") as tar:
        for number, (size, answer) in enumerate(zip(sizes, ANSWERS, strict=True)):
            image = io.BytesIO()
            pictures[size].save(image, "PNG")
            asked = [
                {"type": "image", "image": "png"},
                {"type": "text", "text": "what is shown in this picture?"},
            ]
            said = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
            members = {"json": json.dumps({"messages": said}).encode(), "png": image.getvalue()}
            for ending, data in members.items():
                entry = tarfile.TarInfo(f"row{number}.{ending}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return target


@pytest.mark.parametrize(
    ("name", "experiment"),
    [
        ("llava with llama", "llava/finetune"),
        ("llava_next with mistral", "llava/lora"),
        ("llava_onevision with qwen2", "llava/lora"),
    ],
)
def test_it_is_trained_and_goes_back(name, experiment, hub_models, pictures, shard, tmp_path):
    given = hub_models(name)
    stage = tmp_path / "runs" / "tiny" / experiment.partition("/")[2]
    typed = [
        ["zoo", "import", str(given.folder), "--out", str(tmp_path / "ours")],
        [
            *("train", f"experiment={experiment}", "--model", str(tmp_path / "ours")),
            *("name=tiny", f"output_dir={tmp_path / 'runs'}"),
            f"dataset.sources.0.shards='{shard}'",
            *QUICK,
            *(["lora.rank=2", "lora.alpha=4"] if "lora" in experiment else []),
        ],
        ["zoo", "export", str(stage), "--layout", "transformers", "--out", str(tmp_path / "back")],
    ]
    for words in typed:
        assert main(words) == 0, words
    trained, report = type(given.model).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    before, after = given.model.state_dict(), trained.eval().state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert any("multi_modal_projector" in key for key in changed)
    assert any("language_model" in key for key in changed)
    assert not any("vision_tower" in key for key in changed)
    model, processor, _ = load_model(stage / "model")
    parts = (ReadImage(picture=pictures["odd"]), Text(text="what is this?"))
    asked = Conversation(turns=(Turn(role="user", parts=parts),))
    sample = processor.encode(asked, reply=True)
    batch = collate([sample], blank=BlankTile.of(processor))
    with torch.no_grad():
        ours = model.eval().language_model.logits(model.hidden(batch))[: sample.num_tokens]
        theirs = trained(**given.inputs("what is this?", [pictures["odd"]])).logits[0]
    assert float((ours - theirs).abs().max()) <= 1e-4


@pytest.mark.parametrize("name", ["llava with llama", "llava_onevision with qwen2"])
def test_gradients_are_those_of_transformers(name, hub_models, pictures, tmp_path):
    given = hub_models(name)
    import_llava(given.folder, tmp_path / "ours")
    model, processor, _ = load_model(tmp_path / "ours")
    picture = pictures["larger than the grid"]
    turns = (
        Turn(role="user", parts=(ReadImage(picture=picture), Text(text="what is this?"))),
        Turn(role="assistant", parts=(Text(text="a cat"),), learn=True),
    )
    sample = processor.encode(Conversation(turns=turns))
    batch = collate([sample], blank=BlankTile.of(processor))
    assert batch.num_targets > 3
    losses = model.train()(batch)
    losses.total({"language": float(batch.num_targets)}).backward()

    inputs = given.inputs("what is this?", [picture])
    told = {key: value for key, value in inputs.items() if key not in ("input_ids", "labels")}
    told["attention_mask"] = torch.ones_like(sample.input_ids)[None]
    given.model.zero_grad()
    logits = given.model(input_ids=sample.input_ids[None], **told).logits[0]
    F.cross_entropy(logits[:-1], sample.labels[1:]).backward()

    theirs = {key: value.grad for key, value in given.model.named_parameters()}
    compared = 0
    for key, hub_name in hub_names(dict(model.named_parameters())).items():
        own, other = model.get_parameter(key).grad, theirs[memory_name(hub_name)]
        if own is None or other is None:
            assert own is other is None
            continue
        scale = float(other.abs().max())
        assert float((own - other).abs().max()) <= 1e-4 * max(scale, 1e-3), key
        compared += 1
    given.model.zero_grad()
    assert compared > 40
