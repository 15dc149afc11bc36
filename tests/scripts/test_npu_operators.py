import pytest

KERNELS = {("aten::add.Tensor", "PrivateUse1"), ("own::add", "PrivateUse1"), ("aten::mul", "CPU")}


@pytest.fixture
def script(load_script, monkeypatch):
    """The script, as if an extension with one operator were loaded."""
    script = load_script("npu_operators")
    monkeypatch.setattr(script, "installed_extension", lambda: "an-extension 1.0")
    names = [name for name, _ in KERNELS]
    monkeypatch.setattr(script.torch._C, "_dispatch_get_all_op_names", lambda: names)
    monkeypatch.setattr(
        script.torch._C,
        "_dispatch_has_kernel_for_dispatch_key",
        lambda name, key: (name, key) in KERNELS,
    )
    return script


def test_operators_of_aten_with_a_kernel_are_listed(script, tmp_path):
    file = tmp_path / "operators.txt"
    assert script.main(["--file", str(file)]) == 0
    title, *names = file.read_text().splitlines()
    assert title.startswith("# 1 aten operators with a kernel in an-extension 1.0, listed on 2")
    assert title.endswith("by python scripts/npu_operators.py")
    assert names == script.read_operators(file) == ["aten::add.Tensor"]


def test_differences_are_shown_and_fail(script, tmp_path, capsys):
    file = tmp_path / "operators.txt"
    file.write_text("# 2 operators\naten::add.Tensor\n")
    assert script.main(["--check", "--file", str(file)]) == 0
    assert capsys.readouterr().out == ""
    file.write_text("# 1 operator\naten::erf\n")
    assert script.main(["--check", "--file", str(file)]) == 1
    assert capsys.readouterr().out == "+ aten::add.Tensor\n- aten::erf\n"
    assert file.read_text() == "# 1 operator\naten::erf\n"


@pytest.mark.parametrize("extension", [None, "an-extension 1.0+sim"])
def test_without_the_real_extension_nothing_is_written(
    script, monkeypatch, tmp_path, capsys, extension
):
    monkeypatch.setattr(script, "installed_extension", lambda: extension)
    assert script.main(["--file", str(tmp_path / "operators.txt")]) == 2
    assert f"this environment has {extension}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_extension_is_found_by_its_entry_point(load_script, monkeypatch):
    class Package:
        name, version = "an-extension", "1.0"

    class Point:
        dist = Package

    script = load_script("npu_operators")
    points = {"torch.backends": [Point]}
    monkeypatch.setattr(script.importlib.metadata, "entry_points", lambda group: points[group])
    assert script.installed_extension() == "an-extension 1.0"
    points["torch.backends"] = []
    assert script.installed_extension() is None


def test_the_committed_list_is_plausible(load_script):
    script = load_script("npu_operators")
    file = next(script.SIMULATION.rglob("operators.txt"))
    names = script.read_operators(file)
    assert len(names) == len(set(names)) > 1000
    assert {"aten::mm", "aten::add.Tensor", "aten::_fused_adamw_"} <= set(names)
    assert not {"aten::huber_loss", "aten::cauchy_", "aten::_grouped_mm"} & set(names)
    assert file.read_text().startswith(f"# {len(names)} aten operators")
