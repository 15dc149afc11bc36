"""Bad packs in a whole run: what is left out, brought back, lowered, stopped, kept and counted."""

import json

import pytest
from launching import launch
from play_faults import train_on_bad_packs
from safetensors.torch import load_file
from tiny_training import metrics

CLEAN = {"batches": {"left_out": (8, 9)}, "faults": {}}
ROLL_BACK = {"not_finite": "roll_back"}
BAD = {"batches": {"bad": (9,)}}
"""In step 5, packs 8 and 9; the last checkpoint before it is of step 4."""
RUNS = {
    "skip": BAD | {"faults": {}},
    "lower": BAD | {"faults": {"not_finite": "lower", "lower_factor": 0.25}},
    "roll_back": BAD | {"faults": ROLL_BACK},
    "stop": BAD | {"faults": {"not_finite": "stop"}},
}


def run(folder, **recipe):
    return train_on_bad_packs(folder, runs={"run": recipe})["run"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return train_on_bad_packs(folder, runs=RUNS | {"clean": CLEAN}), folder


def test_a_skipped_update_is_counted_logged_and_kept(alone):
    found, folder = alone[0]["skip"], alone[1] / "skip"
    assert found["finished"]
    assert (found["step"], found["packs"], found["counts"]) == (6, 12, {"not_finite": 1})
    assert [line["step"] for line in metrics(folder)] == [1, 2, 3, 4, 6]
    assert metrics(folder)[-1]["faults"] == {"not_finite": 1}
    (kept,) = (folder / "faults").iterdir()
    assert kept.name == "step-00000005-rank0"
    about = json.loads((kept / "about.json").read_text())
    assert [batch["own_loss"] == "nan" for batch in about["batches"]] == [False, True]
    assert about["batches"][1]["keys"] == ["9-read", "9-draw", "9-text", ""]
    assert load_file(kept / "batch-1.safetensors")["tile_positions"].isnan().all()


def test_a_lowered_rate_holds_from_the_bad_update_on(alone):
    found, folder = alone[0]["lower"], alone[1] / "lower"
    assert (found["lr_factor"], found["counts"]) == (0.25, {"not_finite": 1, "lowered": 1})
    rates = {line["step"]: line["lr"] for line in metrics(folder)}
    assert rates[4] == pytest.approx(1e-3)
    assert rates[6] == pytest.approx(0.25e-3)


def test_after_a_rollback_the_run_is_the_one_that_never_saw_these_packs(alone):
    found, clean = alone[0]["roll_back"], alone[0]["clean"]
    assert found["finished"]
    assert found["counts"] == {"not_finite": 1, "rolled_back": 1}
    assert found["weights"] == clean["weights"]
    assert (found["step"], found["packs"]) == (6, 14)
    lines, expected = metrics(alone[1] / "roll_back"), metrics(alone[1] / "clean")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in lines] == [line["loss"] for line in expected]


def test_a_stop_says_which_samples_and_leaves_the_checkpoint_before(alone):
    found, folder = alone[0]["stop"], alone[1] / "stop"
    assert not found["finished"]
    assert "went wrong at step 5: loss nan" in found["error"]
    assert "9-read" in found["error"]
    assert found["newest"] == 4
    assert (folder / "faults" / "step-00000005-rank0" / "about.json").is_file()


@pytest.mark.parametrize("log_every", [4, 5])
def test_what_is_found_late_is_rolled_back_whole(tmp_path, log_every):
    """Steps behind the bad one are thrown away with it, also at the very end of the run."""
    bad = {"batches": {"bad": (9,)}, "faults": ROLL_BACK, "log_every": log_every}
    found = run(tmp_path / "bad", **bad, max_steps=6, checkpoint_every=4)
    seen_late = {4: (8, 9, 10, 11), 5: (8, 9)}[log_every]
    clean = run(tmp_path / "clean", **CLEAN | {"batches": {"left_out": seen_late}})
    assert found["finished"]
    assert found["counts"] == {"not_finite": 1, "rolled_back": 1}
    assert found["weights"] == clean["weights"]
    assert found["newest"] == 6


def test_several_in_one_look_bring_the_checkpoint_back_once(tmp_path):
    bad = {"batches": {"bad": (8, 10, 12)}, "faults": ROLL_BACK | {"most_rollbacks": 1}}
    found = run(tmp_path, **bad, log_every=8, checkpoint_every=4, max_steps=8)
    assert found["finished"]
    assert found["counts"] == {"not_finite": 3, "rolled_back": 1}
    assert found["packs"] == 24


def test_one_rollback_too_many_ends_the_run(tmp_path):
    bad = {"batches": {"bad": (8, 10, 12)}, "faults": ROLL_BACK | {"most_rollbacks": 2}}
    found = run(tmp_path, **bad)
    assert "2 times the last checkpoint came back" in found["error"]
    assert "12-read" in found["error"]
    assert found["newest"] == 4


def test_a_fault_before_the_first_checkpoint_is_left_out_instead(tmp_path):
    found = run(tmp_path, batches={"bad": (0,)}, faults=ROLL_BACK, max_steps=3)
    assert found["finished"]
    assert found["counts"] == {"not_finite": 1}
    assert found["packs"] == 6


def test_too_many_in_a_row_end_the_run_before_they_are_saved(tmp_path):
    found = run(tmp_path, batches={"bad": tuple(range(4, 30))}, faults={"most_in_row": 3})
    assert "the 3th bad update in a row" in found["error"]
    assert found["newest"] == 4
    assert found["step"] == 5


def test_the_count_in_a_row_and_the_lower_rate_survive_a_resume(tmp_path):
    bad = {"batches": {"bad": tuple(range(4, 30))}}
    faults = {"not_finite": "lower", "most_in_row": 4}
    first = run(tmp_path, **bad, faults=faults, max_steps=4)
    assert (first["lr_factor"], first["error"]) == (0.25, "")
    second = run(tmp_path, **bad, faults=faults, resume="auto")
    assert "step 6" in second["error"]
    assert "the 4th bad update in a row" in second["error"]


def test_spikes_are_left_out_of_a_run_once_there_is_a_history(tmp_path):
    faults = {"spike": "skip", "spike_factor": 1.02}
    found = run(tmp_path, faults=faults, packs_per_step=1, max_steps=26, checkpoint_every=50)
    spikes = found["counts"]["spike"]
    steps = [line["step"] for line in metrics(tmp_path / "run")]
    assert steps[:20] == list(range(1, 21))
    assert len(steps) == 26 - spikes < 26
    kept = [json.loads(path.read_text()) for path in tmp_path.rglob("about.json")]
    assert len(kept) == spikes
    for about in kept:
        assert about["kind"] == "spike"
        assert float(about["grad_norm"]) > float(about["limit"]) > 0
        assert about["step"] not in steps


@pytest.mark.slow
def test_ranks_decide_alike_where_one_of_them_has_the_bad_pack(alone, tmp_path):
    # A stop is the last one, because the other rank is told that this one has failed.
    names = ["fsdp2 clean", *(f"fsdp2 {name}" for name in RUNS)]
    runs = {
        name: (RUNS | {"clean": CLEAN})[name.split()[1]] | {"parallel": {"kind": name.split()[0]}}
        for name in ("ddp skip", *names)
    }
    ranks = launch(train_on_bad_packs, size=2, folder=tmp_path, runs=runs)
    assert ranks[0].keys() == ranks[1].keys() == runs.keys()
    for name in runs:
        one, other = ranks[0][name], ranks[1][name]
        assert one | {"error": ""} == other | {"error": ""}
        expected = alone[0][name.split()[1]]
        for key in ("finished", "step", "counts", "lr_factor", "packs", "newest"):
            assert one[key] == expected[key], (name, key)
    assert ranks[0]["fsdp2 roll_back"]["weights"] == ranks[0]["fsdp2 clean"]["weights"]
    for kind in ("ddp", "fsdp2"):
        kept = tmp_path / f"{kind} skip" / "faults"
        for rank, is_bad in enumerate((False, True)):
            about = json.loads((kept / f"step-00000005-rank{rank}" / "about.json").read_text())
            assert (about["batches"][0]["own_loss"] == "nan") is is_bad
    assert "8-read" in ranks[0]["fsdp2 stop"]["error"]
    assert "9-read" in ranks[1]["fsdp2 stop"]["error"]
