"""The pinned environment passes the audit, and what is wrong or not known never looks clean."""

import json
import subprocess
import sys
from email.message import Message
from types import SimpleNamespace

import pytest


@pytest.fixture
def script(load_script):
    return load_script("audit_dependencies")


@pytest.fixture
def audit(script):
    return script.Audit(num_packages=2)


@pytest.fixture
def decided(script):
    """One decision of each kind."""
    kept = {"licence": "GPL-2.0-only", "source": "its LICENSE", "reason": "a program of its own"}
    told = {"licence": "MIT", "source": "its README"}
    return script.Decisions(
        not_pinned={"tracker": "of a person's own choice"},
        licences={"program": kept, "silent": told},
    )


def package(version="1.0", **told):
    message = Message()
    for name, value in {"License_Expression": "MIT", **told}.items():
        message[name.replace("_", "-")] = value
    return SimpleNamespace(version=version, metadata=message)


def said(audit):
    return [(each.kind, each.package) for each in audit.findings]


def test_this_environment_is_clean(root):
    done = subprocess.run(
        [sys.executable, "scripts/audit_dependencies.py", "--offline", "--json"],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["findings"] == []
    assert done.returncode == 0
    assert told["num_packages"] > 150
    assert told["num_asked"] == 0
    assert "--offline" in told["not_checked"]


def test_names_are_compared_as_the_index_does(script, tmp_path):
    file = tmp_path / "constraints.txt"
    file.write_text("# torch==0\nJinja2==3.1.6\nruamel.yaml_clib==1\n")
    assert script.read_pins(file) == {"jinja2": "3.1.6", "ruamel-yaml-clib": "1"}


def test_direct_dependencies_are_those_of_all_extras(script, tmp_path):
    file = tmp_path / "pyproject.toml"
    file.write_text(
        '[project]\nname = "mllm-npu"\ndependencies = ["torch>=2", "numpy"]\n'
        '[project.optional-dependencies]\nserve = ["ray[serve]>=2", "x ; python_version>\'3\'"]\n'
        'web = ["mllm-npu[serve]", "torch>=2"]\n'
    )
    assert script.read_direct(file) == ["numpy", "ray", "torch", "x"]


def test_a_direct_dependency_without_a_pin_is_found(script, audit, decided):
    script.audit_pins(audit, {"torch": "2"}, ["torch", "numpy", "tracker"], decided)
    assert said(audit) == [("pin", "numpy")]
    assert audit.notes == ["tracker is not pinned: of a person's own choice"]


def test_no_decision_is_stale_and_each_has_its_reason(script, root):
    decided = script.read_decisions(script.DECISIONS)
    pins = script.read_pins(root / "constraints.txt")
    assert decided.not_pinned.keys() <= set(script.read_direct(root / "pyproject.toml"))
    assert not decided.not_pinned.keys() & pins.keys()
    assert decided.licences.keys() <= pins.keys()
    for name, told in decided.licences.items():
        assert told["source"], name
        assert script.is_allowed(told["licence"]) or len(told["reason"]) > 30, name


@pytest.mark.parametrize(
    ("here", "kind"),
    [
        (package(), None),
        (package("1.0+cpu"), None),
        (package("2.0"), "pin"),
        (package(License_Expression="GPL-3.0-only"), "licence"),
        (package(License_Expression="", License="UNKNOWN"), "licence"),
        (package(Classifier="Development Status :: 7 - Inactive"), "upkeep"),
        (None, "pin"),
    ],
)
def test_what_is_wrong_with_a_package_is_found(script, audit, decided, here, kind):
    script.audit_installed(audit, {"one": "1.0"}, {"one": here} if here else {}, decided)
    assert said(audit) == ([(kind, "one")] if kind else [])


def test_a_package_that_is_decided_on_is_taken_and_told(script, audit, decided):
    here = {
        "program": package(License_Expression="GPL-2.0-only"),
        "silent": package(License_Expression=""),
    }
    script.audit_installed(audit, dict.fromkeys(here, "1.0"), here, decided)
    assert audit.findings == []
    assert audit.notes[:-1] == [
        "program is taken with GPL-2.0-only (its LICENSE): a program of its own"
    ]


def test_what_is_installed_beside_the_pins_is_told(script, audit, decided):
    script.audit_installed(audit, {"one": "1.0"}, {"one": package(), "more": package()}, decided)
    assert audit.findings == []
    assert "not audited: more" in audit.notes[0]


@pytest.fixture
def service(script, monkeypatch, tmp_path):
    """A program in place of pip-audit that says and does what a test wants."""

    def stand_in(out="", err="", code=0):
        program = tmp_path / "pip-audit"
        program.write_text(
            f"#!{sys.executable}\nimport sys\n"
            f"sys.stdout.write({out!r}); sys.stderr.write({err!r}); sys.exit({code})\n"
        )
        program.chmod(0o755)
        monkeypatch.setattr(script, "AUDIT_PROGRAM", program)

    return stand_in


def ask(script, audit, tmp_path):
    script.audit_vulnerabilities(audit, tmp_path / "constraints.txt", service="osv")
    return script.exit_code(audit, is_offline=False)


CLEAN = {"name": "one", "version": "1", "vulns": []}
FAULTY = {"name": "two", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"]}]}
SKIPPED = {"name": "two", "skip_reason": "Dependency not found on PyPI"}


def test_a_clean_answer_about_all_packages_is_clean(script, audit, service, tmp_path):
    service(json.dumps({"dependencies": [CLEAN, CLEAN | {"name": "two"}]}))
    assert ask(script, audit, tmp_path) == 0
    assert "vulnerabilities: 2 packages checked" in script.render(audit)


def test_a_vulnerability_is_found(script, audit, service, tmp_path):
    service(json.dumps({"dependencies": [CLEAN, FAULTY]}), code=1)
    assert ask(script, audit, tmp_path) == 1
    assert "vulnerability: two: CVE-1, mended in 1.1" in script.render(audit)


@pytest.mark.parametrize("told", [[CLEAN, SKIPPED], [CLEAN], []])
def test_a_service_that_does_not_know_all_packages_is_no_clean_result(
    script, audit, service, tmp_path, told
):
    service(json.dumps({"dependencies": told}), err="No known vulnerabilities found")
    assert ask(script, audit, tmp_path) == 3
    shown = script.render(audit)
    known = len([each for each in told if "vulns" in each])
    assert f"VULNERABILITIES WERE NOT CHECKED: the service osv told of {known} of 2" in shown


def test_a_service_that_is_not_there_is_told_loudly(script, audit, service, tmp_path):
    service(err="Traceback\nConnectionError: no route to api.osv.dev", code=1)
    assert ask(script, audit, tmp_path) == 3
    shown = script.render(audit)
    assert "VULNERABILITIES WERE NOT CHECKED" in shown
    assert "no route to api.osv.dev" in shown


def test_without_the_program_nothing_is_checked(script, audit, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "AUDIT_PROGRAM", tmp_path / "none")
    monkeypatch.setattr(script.shutil, "which", lambda _: None)
    assert ask(script, audit, tmp_path) == 3
    assert "pip-audit is not installed" in audit.not_checked


def test_a_service_that_does_not_answer_is_given_up(script, audit, service, tmp_path, monkeypatch):
    service()
    script.AUDIT_PROGRAM.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(30)\n")
    monkeypatch.setattr(script, "SECONDS", 0.5)
    assert ask(script, audit, tmp_path) == 3
    assert "did not answer within 0.5 seconds" in audit.not_checked


def test_findings_come_before_what_was_not_checked(script, audit):
    audit.add("pin", "one", "not pinned")
    audit.not_checked = "no service"
    assert (
        script.exit_code(audit, is_offline=True) == script.exit_code(audit, is_offline=False) == 1
    )


def test_the_help_tells_the_exit_codes(script, capsys):
    with pytest.raises(SystemExit) as caught:
        script.main(["--help"])
    assert caught.value.code == 0
    assert "3 nothing found but vulnerabilities not checked" in capsys.readouterr().out
