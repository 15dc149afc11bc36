"""The parts the documentation adds, laid over a copy of the project: they fit and they train."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# --8<-- [start:case]
CASE = 'simple("squared_relu", "rows", (3, 5, 8)),'
# --8<-- [end:case]
CASES = "tests/ops/test_every_way.py"
TOGETHER = (
    "models/vision_encoder=patch_mlp",
    "models/projector=gated",
    "models/language_model=olmo2_tiny",
    "models/image_decoder=linear",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scratch(root, tmp_path_factory) -> Path:
    """A copy of package and tests with the new files in it."""
    folder = tmp_path_factory.mktemp("scratch")
    for name in ("mllm_npu", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "npusim")
        shutil.copytree(root / name, folder / name, ignore=ignored)
    shutil.copy(root / "pyproject.toml", folder)
    laid_over = root / "examples" / "new_parts"
    for path in laid_over.rglob("*.*"):
        target = folder / path.relative_to(laid_over)
        if path.is_file() and "__pycache__" not in path.parts:
            assert not target.exists(), f"{target} is no new part"
            shutil.copy(path, target)
    cases = folder / CASES
    begin = "CASES = [\n"
    text = cases.read_text()
    assert begin in text
    cases.write_text(text.replace(begin, f"{begin}    {CASE}\n", 1))
    return folder


def run(folder, *command):
    variables = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_their_tests_and_those_of_every_part_pass(root, scratch):
    new = root / "examples" / "new_parts"
    own = [str(path.relative_to(new)) for path in sorted((new / "tests").rglob("test_*.py"))]
    configs = [path.relative_to(new / "mllm_npu" / "configs") for path in new.rglob("*.yaml")]
    composed = [
        f"tests/architecture/test_configs.py::test_composes_and_builds_on_meta[{name}]"
        for name in configs
    ]
    told = "test_a_task_is_told_everything_but_what_the_run_gives[task/yes_or_no.yaml]"
    asked = [
        *own,
        *composed,
        f"tests/architecture/test_configs.py::{told}",
        f"{CASES}::test_every_way_of_the_device_has_a_case[squared_relu-cpu]",
        f"{CASES}::test_every_way_is_the_reference[squared_relu-rows-cpu-fp32]",
        f"{CASES}::test_the_way_that_is_picked_is_counted_and_never_waits[squared_relu-rows-cpu]",
    ]
    assert len(own) == 7
    assert len(composed) == 6
    out = run(scratch, "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *asked)
    assert "passed" in out
    assert "skipped" not in out


def test_all_of_them_train_together(digits, quiet, scratch):
    """With the four parts of a model chosen by one word each."""
    command = ("mllm_npu.cli", "train", "experiment=digits/mllm", *TOGETHER)
    settings = (f"world_dir={digits}", "initialise_from=null", "train.max_steps=2")
    run(scratch, *command, *settings, *quiet)
    described = (scratch / "runs" / "digits" / "mllm" / "model" / "model.yaml").read_text()
    for part in ("PatchMLP", "GatedProjector", "olmo2", "LinearImageDecoder"):
        assert part in described
