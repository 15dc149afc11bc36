"""A model card holds what the Hub reads and what people want to know, made from the run."""

import shutil

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from mllm_npu.errors import WeightsError
from mllm_npu.shipped import SHIPPED_FOLDER
from mllm_npu.zoo.model_card import CardFacts, contact_sheet, count_parameters, write_model_card
from mllm_npu.zoo.model_card_facts import CardFigure, RunFacts, StageFacts

FIGURES = (
    CardFigure(
        name="accuracy",
        title="Read right",
        value=0.9,
        interval=(0.8, 0.95),
        num=40,
        citation="Scans of our own.",
    ),
    CardFigure(name="train_seconds", title="Training, seconds", value=9.5),
)
STAGE = StageFacts(
    name="vision",
    start=None,
    steps=400,
    lr=0.001,
    tokens_per_pack=1792,
    seconds=85.8,
    sources=(("caption", 0.75), ("text", 0.25)),
    seed=3,
)


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(SHIPPED_FOLDER / "digits", tmp_path / "model")
    return tmp_path / "model"


def test_the_front_matter_is_what_the_hub_reads(folder):
    facts = CardFacts(licence="mit", base_models=("me/base",), tags=("digits",))
    write_model_card(folder, RunFacts(figures=FIGURES, world="digits"), facts)
    data = ModelCard.load(folder / "README.md").data
    assert data.license == "mit"
    assert data.base_model == ["me/base"]
    assert data.pipeline_tag == "any-to-any"
    assert set(data.tags) == {"digits", "mllm-npu", "multimodal"}
    [result] = data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.9)
    assert result.dataset_type == "digits"


def test_the_page_says_figures_data_recipe_and_configuration(folder):
    run = RunFacts(
        figures=FIGURES,
        stages=(STAGE,),
        world="digits",
        machine={"cores": 2},
        versions={"torch": "2"},
    )
    page = write_model_card(folder, run, CardFacts(title="My model")).read_text()
    assert "# My model" in page
    assert "1.14 M parameters" in page
    assert "| Read right | 0.9 | 0.8–0.95 | 40 |" in page
    assert "| Training, seconds | 9.5 |  |  |" in page
    assert "on cores 2" in page
    assert "- Scans of our own." in page
    assert (
        "| vision | random values | 400 | 0.001 | 1792 | 85.8 | 3 | caption 75 %, text 25 % |"
        in page
    )
    assert "| language_model | `HuggingFaceLanguageModel` |" in page
    assert (folder / "model.yaml").read_text() in page
    assert "Measured with torch 2." in page
    assert "## Pictures" not in page


def test_a_model_without_a_run_says_so(folder):
    page = write_model_card(folder, RunFacts(), CardFacts()).read_text()
    assert "holds no stages of training" in page
    assert "## Figures" not in page
    assert "model-index" not in page
    assert "license" not in page.partition("# digits")[0]


@pytest.fixture
def asked(tmp_path):
    """A run whose evaluation drew three pictures and read five."""
    (tmp_path / "run" / "pictures").mkdir(parents=True)
    lines = []
    for number in range(5):
        Image.new("L", (16, 16), 40 * number).save(tmp_path / "run" / "pictures" / f"{number}.png")
        kind = "drawn" if number < 3 else "read"
        lines.append(
            f'{{"question": ["Q{number}"], "reply": "r", "answer": "{number % 4}", "score": '
            f'{float(number == 4)}, "pictures_{kind}": ["{number}.png"]}}\n'
        )
    (tmp_path / "run" / "records.jsonl").write_text("".join(lines))
    return tmp_path / "run"


def test_pictures_of_the_evaluation_lie_beside_the_card(folder, asked):
    page = write_model_card(folder, RunFacts(folder=asked), CardFacts()).read_text()
    assert "(pictures/drawn.png)" in page
    assert "![shown](pictures/3.png) Q3 → **r** (right: 3)" in page
    assert "![shown](pictures/4.png) Q4 → **r**\n" in page
    with Image.open(folder / "pictures" / "drawn.png") as sheet:
        assert sheet.size == (3 * 64, 64)
        assert sheet.getpixel((64 + 32, 32)) == (40, 40, 40)
    assert {path.name for path in (folder / "pictures").iterdir()} == {
        "drawn.png",
        "3.png",
        "4.png",
    }


def test_a_sheet_breaks_into_rows_and_keeps_shapes(tmp_path):
    for number in range(11):
        Image.new("RGB", (8, 4), "black").save(tmp_path / f"{number:02}.png")
    sheet = contact_sheet(sorted(tmp_path.glob("*.png")), edge=16)
    assert sheet.size == (160, 32)
    assert sheet.getpixel((4, 4)) == (0, 0, 0)
    assert sheet.getpixel((4, 12)) == (255, 255, 255)  # below a wide picture
    assert sheet.getpixel((20, 20)) == (255, 255, 255)  # the second row has one


def test_parameters_are_counted_from_the_headers(folder):
    sizes = count_parameters(folder)
    assert sizes["vision_encoder"] > 300_000
    assert sum(sizes.values()) >= 1134625  # and what is measured once
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(WeightsError, match=r"model\.safetensors cannot be read"):
        count_parameters(folder)
