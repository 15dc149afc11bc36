"""Each group of tests beside a simulated NPU runs in one process of its own."""

import pytest

GROUPS = ("sim_basics", "sim_fused", "sim_llava", "sim_planted_bugs", "sim_step")


@pytest.mark.slow
@pytest.mark.parametrize("name", GROUPS)
def test_group(simulated, name):
    result = simulated.run_group(name)
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
def test_two_ranks(simulated, tmp_path):
    result = simulated.run_simulated_ranks(simulated.GROUPS / "sim_ranks.py", str(tmp_path))
    assert result.returncode == 0, result.stdout
    assert "check_checkpoints" in result.stdout
