import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mllm_npu.errors import WeightsError
from mllm_npu.models.tiny import LANGUAGE_CONFIGS, tiny_batch, tiny_language_model, tiny_seed
from mllm_npu.models.weights import WEIGHTS_FILE, load_weights, restore_buffers, save_weights


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, 3)
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.table.weight
        self.register_buffer("mean", torch.zeros(3))


def test_a_model_survives_the_way_to_the_disk(tmp_path):
    model, other = tiny_seed(), tiny_seed()
    save_weights(tmp_path, model)
    report = load_weights(other, tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    assert len(report.loaded) >= len(list(model.parameters()))
    assert (report.missing, report.unexpected, report.reshaped) == ((), (), ())
    assert os.listdir(tmp_path) == [WEIGHTS_FILE]


@pytest.mark.parametrize("vision", ["siglip", "clip", "dinov2"])
def test_a_model_built_without_memory_computes_the_same(tmp_path, vision):
    model = tiny_seed(vision=vision)
    save_weights(tmp_path, model)
    with torch.device("meta"):
        hollow = tiny_seed(vision=vision)
    load_weights(hollow, tmp_path)
    tensors = [*hollow.named_parameters(), *hollow.named_buffers()]
    assert [name for name, tensor in tensors if tensor.is_meta] == []
    batch = tiny_batch()
    for name, term in model(batch).terms.items():
        assert torch.equal(hollow(batch).terms[name].total, term.total), name


@pytest.mark.parametrize("family", LANGUAGE_CONFIGS)
def test_rotary_tables_come_back_with_every_family(tmp_path, family):
    model = tiny_language_model(family)
    save_weights(tmp_path, model)
    with torch.device("meta"):
        hollow = tiny_language_model(family)
    load_weights(hollow, tmp_path)
    saved = dict(model.named_buffers())
    for name, buffer in hollow.named_buffers():
        assert torch.equal(buffer, saved[name]), name


def test_restoring_buffers_leaves_parameters_alone(tmp_path):
    model = tiny_language_model()
    before = {name: value.clone() for name, value in model.named_parameters()}
    rotary = model.causal_lm.model.rotary_emb
    expected = rotary.inv_freq.clone()
    rotary.inv_freq = torch.empty_like(expected, device="meta")
    restore_buffers(model)
    assert torch.equal(rotary.inv_freq, expected)
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())


def test_shared_parameters_are_written_once_and_stay_shared(tmp_path):
    model = Tied()
    file = save_weights(tmp_path, model)
    assert file.stat().st_size < 600
    with torch.device("meta"):
        hollow = Tied()
    load_weights(hollow, tmp_path)
    assert hollow.head.weight is hollow.table.weight
    assert torch.equal(hollow.table.weight, model.table.weight)


def test_a_checkpoint_with_either_name_of_a_shared_parameter_is_whole(tmp_path):
    for name in ("table.weight", "head.weight"):
        save_file({name: torch.ones(4, 3), "mean": torch.ones(3)}, tmp_path / "model.safetensors")
        model = Tied()
        assert load_weights(model, tmp_path).missing == ()
        assert model.table.weight.sum() == 12


def test_several_files_and_a_single_file_are_read(tmp_path):
    save_file({"table.weight": torch.ones(4, 3)}, tmp_path / "a.safetensors")
    save_file({"mean": torch.ones(3)}, tmp_path / "b.safetensors")
    assert load_weights(Tied(), tmp_path).missing == ()
    assert load_weights(Tied(), tmp_path / "a.safetensors", strict=False).missing == ("mean",)


def test_missing_and_unexpected_names_are_refused_or_reported(tmp_path):
    save_file({"mean": torch.ones(3), "more": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"2 missing \(head.weight, .*1 unexpected \(more\)"):
        load_weights(Tied(), tmp_path)
    report = load_weights(Tied(), tmp_path, strict=False)
    assert report.missing == ("head.weight", "table.weight")
    assert report.unexpected == ("more",)
    assert "1 loaded (mean)" in str(report)


def test_nothing_is_changed_by_a_checkpoint_that_is_refused(tmp_path):
    model = Tied()
    before = model.table.weight.detach().clone()
    save_file({"table.weight": torch.ones(4, 3)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError):
        load_weights(model, tmp_path)
    assert torch.equal(model.table.weight, before)


@pytest.mark.parametrize("strict", [True, False])
def test_foreign_empty_and_absent_checkpoints_are_refused(tmp_path, strict):
    foreign, empty = tmp_path / "foreign", tmp_path / "empty"
    for folder in (foreign, empty):
        folder.mkdir()
    save_file({"some.thing": torch.ones(2)}, foreign / "x.safetensors")
    save_file({}, empty / "x.safetensors")
    with pytest.raises(
        WeightsError, match=r"foreign holds nothing for Tied: its names are some\.thing"
    ):
        load_weights(Tied(), foreign, strict=strict)
    with pytest.raises(WeightsError, match="No weights were found"):
        load_weights(Tied(), empty, strict=strict)
    with pytest.raises(WeightsError, match="nowhere"):
        load_weights(Tied(), tmp_path / "nowhere", strict=strict)


def test_another_size_is_refused_with_both_shapes(tmp_path):
    save_file({"table.weight": torch.ones(5, 3), "mean": torch.ones(3)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"'table.weight' .*has shape \[5, 3\].*\[4, 3\]"):
        load_weights(Tied(), tmp_path, strict=False)


def test_another_shape_of_the_same_size_is_taken_and_reported(tmp_path):
    values = {"table.weight": torch.arange(12.0).view(1, 4, 3), "mean": torch.ones(3)}
    save_file(values, tmp_path / "x.safetensors")
    model = Tied()
    assert load_weights(model, tmp_path).reshaped == ("table.weight",)
    assert model.table.weight[3].tolist() == [9, 10, 11]


def test_a_cut_file_is_refused(tmp_path):
    file = save_weights(tmp_path, Tied())
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        load_weights(Tied(), tmp_path)


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = save_weights(tmp_path, Tied())
    old = file.read_bytes()

    def fail(*_, **__):
        (tmp_path / f"{WEIGHTS_FILE}.{os.getpid()}.partial").write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("mllm_npu.models.weights.save_file", fail)
    with pytest.raises(WeightsError, match="No space left"):
        save_weights(tmp_path, Tied())
    assert os.listdir(tmp_path) == [WEIGHTS_FILE]
    assert file.read_bytes() == old


def test_a_model_without_memory_is_not_saved(tmp_path):
    with torch.device("meta"):
        hollow = Tied()
    with pytest.raises(WeightsError, match="load weights before saving"):
        save_weights(tmp_path, hollow)
    assert os.listdir(tmp_path) == []


def test_the_file_says_which_names_are_shared(tmp_path):
    file = save_weights(tmp_path, Tied())
    length = int.from_bytes(file.read_bytes()[:8], "little")
    header = json.loads(file.read_bytes()[8 : 8 + length])
    assert json.loads(header["__metadata__"]["aliases"]) == {"head.weight": "table.weight"}


def test_whole_numbers_for_fractions_are_refused(tmp_path):
    """Quantised weights would be taken for values; nothing would be said and nothing be right."""
    values = {"table.weight": torch.ones(4, 3, dtype=torch.int8), "mean": torch.ones(3)}
    save_file(values, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"holds torch.int8.*quantised"):
        load_weights(Tied(), tmp_path)
    values["table.weight"] = torch.ones(4, 3, dtype=torch.bfloat16)
    save_file(values, tmp_path / "x.safetensors")
    assert load_weights(Tied(), tmp_path).missing == ()


@pytest.mark.parametrize("keep", [0, 8, 60])
def test_a_file_that_is_cut_off_is_refused_in_one_message(tmp_path, keep):
    file = save_weights(tmp_path, Tied())
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(
        WeightsError, match=r"model\.safetensors cannot be read.*written and copied whole"
    ):
        load_weights(Tied(), tmp_path)


def test_several_sources_are_one_checkpoint_and_the_later_wins(tmp_path):
    save_file(
        {"table.weight": torch.zeros(4, 3), "mean": torch.ones(3)}, tmp_path / "a.safetensors"
    )
    save_file({"table.weight": torch.full((4, 3), 2.0)}, tmp_path / "b.safetensors")
    model = Tied()
    report = load_weights(model, [tmp_path / "a.safetensors", tmp_path / "b.safetensors"])
    assert (model.table.weight == 2).all()
    assert report.replaced == ("table.weight",)
    assert "1 replaced (table.weight)" in str(report)
    load_weights(model, [tmp_path / "b.safetensors", tmp_path / "a.safetensors"])
    assert (model.table.weight == 0).all()


PEAK = """
import resource, sys
import torch
from torch import nn
from mllm_npu.models.weights import load_weights


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


with torch.device("meta"):
    model = nn.Sequential(*[nn.Linear(4096, 4096, bias=False) for _ in range(16)])
before = peak()
load_weights(model, sys.argv[1])
total = sum(float(p.detach().sum()) for p in model.parameters())  # touches every value
size = sum(p.numel() * p.element_size() for p in model.parameters())
assert total == 16 * 4096.0, total
print((peak() - before) / size)
"""


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_a_gigabyte_is_not_in_memory_twice(tmp_path, ending):
    """1 GiB of float32 in 16 matrices, loaded in a process of its own."""
    values = {f"{number}.weight": torch.zeros(4096, 4096) for number in range(16)}
    for value in values.values():
        value[0] = 1
    file = tmp_path / f"model.{ending}"
    save_file(values, file) if ending == "safetensors" else torch.save(values, file)
    assert file.stat().st_size > 2**30
    del values
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(file)], check=True, capture_output=True, text=True
    )
    file.unlink()
    assert float(done.stdout) <= 1.1
