"""Versions are read from whichever file an installer has left."""

import pytest

from mllm_npu.device.doctor.ascend_files import (
    Cann,
    Driver,
    device_files,
    find_cann,
    know_each_other,
    read_cann,
    read_driver,
    read_fields,
)

RUNNING = "# version: 1.0\nruntime_running_version=[7.6.0.1.220:8.0.0]\nopp_upgrade_version=[]\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("name", "text", "version"),
    [
        ("x86_64-linux/ascend_toolkit_install.info", "version=8.3.RC1\narch=x86_64\n", "8.3.RC1"),
        ("ascend_nnae_install.info", "version=8.2.RC1\n", "8.2.RC1"),
        ("version.cfg", RUNNING, "8.0.0"),
        ("version.cfg", "toolkit_running_version=[8.5.2]\n", "8.5.2"),
        ("compiler/version.info", "Version=7.6.0.1.220\nversion_dir=8.0.0\n", "8.0.0"),
        ("runtime/version.info", 'Version="9.0.0"\n', "9.0.0"),
        ("compiler/version.info", "nothing of use\n", ""),
        ("readme.txt", "version=1\n", ""),
    ],
)
def test_a_version_is_found_in_any_of_the_files(tmp_path, name, text, version):
    write(tmp_path / name, text)
    assert read_cann(tmp_path, is_active=False).version == version


def test_bytes_that_are_no_text_do_no_harm(tmp_path):
    (tmp_path / "version.cfg").write_bytes(b"\xff\xfe\x00runtime_running_version=[8.5.0]\n")
    assert read_cann(tmp_path, is_active=True).version == "8.5.0"


def test_the_shells_cann_comes_before_the_default_one(fake_machine, tmp_path):
    fake_machine.add_cann("8.5.0")
    own = tmp_path / "own"
    write(own / "ascend_toolkit_install.info", "version=9.1.0\n")
    found = find_cann({"ASCEND_TOOLKIT_HOME": str(own)}, fake_machine.root)
    assert (found.version, found.is_active) == ("9.1.0", True)
    found = find_cann({}, fake_machine.root)
    assert (found.version, found.is_active) == ("8.5.0", False)
    assert find_cann({"ASCEND_TOOLKIT_HOME": str(tmp_path / "gone")}, tmp_path) is None


@pytest.mark.parametrize("folder", ["cann", "cann-9.1.0", "nnae/latest"])
def test_every_place_of_an_installer_is_looked_at(tmp_path, folder):
    write(tmp_path / folder / "ascend_toolkit_install.info", "version=9.1.0\n")
    assert find_cann({}, tmp_path).home == tmp_path / folder


def test_families_are_read_and_compared(fake_machine):
    fake_machine.add_cann(family="V100R001C23")
    cann = find_cann({}, fake_machine.root)
    assert cann.family == "V100R001C23"
    assert cann.works_with == ("V100R001C18", "V100R001C19", "V100R001C20", "V100R001C23")
    driver = read_driver(fake_machine.add_driver("25.3.rc1", family="V100R001C23"))
    assert (driver.version, driver.family) == ("25.3.rc1", "V100R001C23")
    assert know_each_other(cann, driver) is True


def test_one_side_that_knows_the_other_is_enough(tmp_path):
    cann = Cann(home=tmp_path, family="C1", works_with=("C0",))
    assert know_each_other(cann, Driver(family="C9", works_with=("C1",))) is True
    assert know_each_other(cann, Driver(family="C0", works_with=("C7",))) is True
    assert know_each_other(cann, Driver(family="C9", works_with=("C7",))) is False
    assert know_each_other(Cann(home=tmp_path), Driver(version="26.0")) is None


def test_a_driver_is_there_or_not(tmp_path):
    assert read_driver(tmp_path / "version.info") is None
    write(tmp_path / "version.info", "package_version=26.0.rc1\n")
    assert read_driver(tmp_path / "version.info").version == "26.0.rc1"


def test_fields_are_read_without_comments(tmp_path):
    write(tmp_path / "x.info", "# a=b\nName = value=with=signs \nno field\n")
    assert read_fields(tmp_path / "x.info") == {"name": "value=with=signs"}


def test_device_files_are_counted_and_missed(fake_machine):
    assert device_files(fake_machine.devices)[0] == 0
    fake_machine.add_devices("davinci0", "davinci11", "davinci_manager", "hisi_hdc")
    assert device_files(fake_machine.devices) == (2, ("devmm_svm",))
