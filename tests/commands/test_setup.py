"""What is set up, for people and for machines."""

import json

from mllm_npu.cli import main


def test_config_prints_what_overrides_give(capsys):
    assert main(["config", "models/language_model=qwen3_tiny", "--json"]) == 0
    composed = json.loads(capsys.readouterr().out)
    assert composed["models"]["language_model"]["config"]["model_type"] == "qwen3"


def test_a_file_of_the_original_is_printed_as_values_of_ours(tmp_path, capsys):
    resampler = "{dim: 8, depth: 1, dim_head: 4, heads: 2, num_queries: 4, embedding_dim: 6}"
    target = "mllm_npu.models.generation.adapter_modules.SDXLAdapter.from_pretrained"
    file = tmp_path / "adapter.yaml"
    file.write_text(f"_target_: {target}\nresampler: {resampler}\n")
    assert main(["config", "--from-original", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["models"]["image_decoder"]
    assert found["_target_"] == "mllm_npu.models.image_decoder.sdxl.SDXLImageDecoder"
    assert found["resampler"]["num_queries"] == 4
    file.write_text("[]")
    assert main(["config", "--from-original", str(file)]) == 2
    assert main(["config", "--from-original", str(tmp_path / "gone.yaml")]) == 2
