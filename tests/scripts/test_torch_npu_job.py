"""What the job on the real wheel works out by itself; the wheel is not needed for any of it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def script(load_script):
    return load_script("torch_npu_job")


@pytest.fixture
def part(script, monkeypatch):
    """Imports a module of the job's folder."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    return script._part


def test_a_check_finds_the_wheel_first_and_fetches_nothing(script):
    around = {"PATH": "/bin", "PYTHONPATH": "mine", "RANK": "1", "LD_LIBRARY_PATH": ""}
    variables = script.environment(
        around, site=Path("site"), libraries=Path("libraries"), also={"FALLBACK": "0"}
    )
    assert variables["FALLBACK"] == "0"
    assert variables["PYTHONPATH"].split(":") == ["site", str(script.ROOT), "mine"]
    assert variables["LD_LIBRARY_PATH"] == "libraries"
    assert variables["HF_HUB_OFFLINE"] == "1"
    assert "RANK" not in variables


@pytest.mark.parametrize(
    ("text", "is_good", "words"),
    [
        ("print('first'); print('the same')", True, "the same"),
        ("assert 0, 'no such kernel'", False, "AssertionError: no such kernel"),
        ("import os; os.kill(os.getpid(), 9)", False, "ended by signal 9"),
        ("import time; print('on', flush=True); time.sleep(60)", False, "not ready after 2 s"),
    ],
)
def test_a_check_ends_one_way_or_the_other_in_bounded_time(script, tmp_path, text, is_good, words):
    file = tmp_path / "check_it.py"
    file.write_text(text)
    result = script.run_check(file, {"PATH": "/bin"}, seconds=2)
    assert (result.name, result.is_good) == ("check_it", is_good)
    assert words in result.said
    assert words in result.line()
    assert result.line().startswith("ok" if is_good else "FAILED")
    assert len(result.line().splitlines()) == 1 or not is_good


def test_the_last_line_counts_checks(script):
    results = [script.Result(name=n, is_good=n != "b", said="", seconds=1.0) for n in "abc"]
    assert script.summary(results) == "1 of 3 checks failed: b"
    assert script.summary(results[:1]) == "all 1 checks passed"


@pytest.mark.parametrize(
    ("system", "machine", "tools", "words"),
    [
        ("Linux", "x86_64", {"gcc": True, "nm": True}, None),
        ("Linux", "aarch64", {}, None),
        ("Darwin", "arm64", {}, "this is Darwin"),
        ("Linux", "riscv64", {}, "this is riscv64"),
        ("Linux", "x86_64", {"gcc": False, "nm": True}, "gcc is missing"),
    ],
)
def test_a_machine_without_wheels_or_compiler_is_an_obstacle(part, system, machine, tools, words):
    reason = part("wheel_site").obstacle(system=system, machine=machine, has_tool=tools)
    assert (reason is None) is (words is None)
    assert words is None or words in reason


def test_a_wheel_that_cannot_be_had_is_no_failure(script, part, monkeypatch, tmp_path, capsys):
    wheel = part("wheel_site")
    done = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: No matching version\n")
    monkeypatch.setattr(wheel.subprocess, "run", lambda *a, **b: done)
    monkeypatch.setattr(wheel, "obstacle", lambda **facts: None)
    assert script.main(["--folder", str(tmp_path / "folder")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("skipped: pip cannot install torch-npu==")
    assert said.endswith("ERROR: No matching version\n")
    assert not (tmp_path / "folder").exists()


def test_half_a_wheel_never_stays(part, monkeypatch, tmp_path):
    wheel = part("wheel_site")

    def install(command, **options):
        target = Path(command[command.index("--target") + 1])
        target.mkdir(parents=True)
        (target / "one.py").touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    (tmp_path / "site.partial/old").mkdir(parents=True)
    monkeypatch.setattr(wheel.subprocess, "run", install)
    wheel._install("torch-npu==0", tmp_path / "site")
    assert [path.name for path in tmp_path.rglob("*")] == ["site", "one.py"]


def test_names_are_found_as_whole_strings(part):
    symbols = part("wheel_symbols")
    content = b"\0aclrtMalloc\0xaclrtFree\0aclnnAdd\0HcclSend!\0rtGetPid\0\x01HcclRecv\x02"
    strings = symbols.strings_in(content)
    assert symbols.matching(strings, symbols._RUNTIME) == {"aclrtMalloc", "rtGetPid", "HcclRecv"}
    assert symbols.matching(strings, symbols._OPERATORS) == {"aclnnAdd"}


def test_both_steps_of_an_operator_are_needed(part):
    found = part("wheel_symbols").with_workspaces({"aclnnAdd", "aclnnMulGetWorkspaceSize"})
    assert found == ("aclnnAdd", "aclnnAddGetWorkspaceSize", "aclnnMulGetWorkspaceSize")


def test_only_what_nobody_has_is_missing(part):
    symbols = part("wheel_symbols")
    wanted = ["aclrtMalloc", "PyList_New", "memcpy", "_ITM_x", "_ZTIN2ge5GraphE"]
    missing = symbols.missing_symbols(wanted, ["memcpy", "other"])
    assert missing == {"aclrtMalloc", "_ZTIN2ge5GraphE"}
    assert [name for name in sorted(missing) if symbols.is_table(name)] == ["_ZTIN2ge5GraphE"]


def test_stand_ins_give_zero(part):
    text = part("stand_ins").source(["HcclSend"], ["_ZTIx"])
    assert text == "long HcclSend(void) { return 0; }\nchar _ZTIx[256];\n"


SCHEMA = (
    'npu_f(Tensor query, int head_num, str layout="a, b", float[2] scale=[1, 2], *, '
    "Tensor(a!)? mask=None, int[]? ends=None) -> (Tensor, Tensor)"
)


def test_a_schema_is_read(part):
    signature = part("ops_calls").read_signature(SCHEMA)
    assert signature.names == ("query", "head_num", "layout", "scale", "mask", "ends")
    assert signature.positional == 4
    assert part("ops_calls").read_signature("npu_g() -> Tensor").names == ()
    assert part("ops_calls").read_signature("npu_h(Tensor x) -> Tensor").positional == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("kernels.npu_f(q, 4, layout='x', mask=m)", None),
        ("kernels.npu_f(q, 4, **limits)", None),
        ("kernels.npu_f(q, head_count=4)", "head_count by name"),
        ("kernels.npu_f(q, 4, 'x', 1.0, m)", "5 by place"),
        ("kernels.npu_f(q, query=q)", "query by name"),
        ("kernels.npu_gone(q)", "there is no npu_gone"),
    ],
)
def test_a_call_with_arguments_the_kernel_has_not_is_seen(part, tmp_path, line, words):
    calls = part("ops_calls")
    (tmp_path / "op.py").write_text(f"import os\nos.path.join('a')\n{line}\n")
    found = calls.complaints(calls.calls_below(tmp_path), {"npu_f": [calls.read_signature(SCHEMA)]})
    assert len(found) == (words is not None)
    assert words is None or (found[0].startswith("op.py:3: ") and words in found[0])


def test_the_package_calls_fused_kernels(part, root):
    names = {call.kernel for call in part("ops_calls").calls_below(root / "mllm_npu/ops")}
    assert "npu_fusion_attention" in names


LOAD = """
import ctypes, sys
count = ctypes.c_uint32()
other = ctypes.CDLL(sys.argv[1] + "/libhccl.so")
assert other.HcclSend() == 0
assert other.aclrtGetDeviceCount(ctypes.byref(count)) == 0
other.aclrtGetSocName.restype = ctypes.c_char_p
operators = ctypes.CDLL(sys.argv[1] + "/libopapi.so")
assert operators.aclnnAdd() == 0
print(count.value, other.aclrtGetSocName().decode())
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
def test_stand_ins_can_be_loaded_and_know_their_devices(part, tmp_path):
    """A library that is linked with the main one gives the main one's functions too."""
    needs = part("wheel_symbols").Needs(
        libraries=("libascendcl.so", "libhccl.so"),
        functions=("HcclSend", "aclrtGetDeviceCount"),
        tables=("_ZTIN2ge5GraphE",),
        operators=("aclnnAdd",),
    )
    names = [path.name for path in part("stand_ins").build(needs, tmp_path)]
    assert names == ["libascendcl.so", "libopapi.so", "libhccl.so"]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path)],
        env={"STAND_IN_DEVICES": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "3 Ascend910B3\n"
