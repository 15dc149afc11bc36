"""Audit every dependency: licences, pins, upkeep, and known vulnerabilities if they can be asked.

    python scripts/audit_dependencies.py

The first three are read from constraints.txt, pyproject.toml and the metadata of what is installed.
For vulnerabilities pip-audit asks a service about all pins; where it or the service is not there,
or the service does not know a package, that is told and is no clean result.

Exit codes: 0 nothing found and everything checked (with --offline: all but vulnerabilities), 1
something found, 2 the command line is wrong, 3 nothing found but vulnerabilities not checked.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import Distribution, distributions
from pathlib import Path

from dependency_licences import is_allowed, read_licence

ROOT = Path(__file__).resolve().parents[1]
DECISIONS = Path(__file__).with_suffix(".toml")
AUDIT_PROGRAM = ROOT / ".venv-audit" / "bin" / "pip-audit"
OK, FOUND, NOT_CHECKED = 0, 1, 3
SECONDS = 600.0
INACTIVE = "Development Status :: 7 - Inactive"
TOOLS = ("mllm-npu", "pip", "setuptools", "wheel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """What was decided about single packages.

    Args:
        not_pinned: why, by name.
        licences: by name: the licence, where it stands (``source``), and the ``reason`` to take it
            where it is not allowed.
        inactive: by name: why a package is kept that calls itself inactive.
    """

    not_pinned: Mapping[str, str]
    licences: Mapping[str, Mapping[str, str]]
    inactive: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it should be.

    Args:
        kind: licence, pin, upkeep or vulnerability.
        package: that it is about.
        said: what is, and what to do.
    """

    kind: str
    package: str
    said: str


@dataclass(slots=True, kw_only=True)
class Audit:
    """What was found.

    Args:
        num_packages: that are pinned.
        findings: what is wrong.
        notes: what is worth knowing.
        num_asked: packages whose vulnerabilities were asked for and told.
        not_checked: why others were not; None where all were.
    """

    num_packages: int
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    num_asked: int = 0
    not_checked: str | None = None

    def add(self, kind: str, package: str, said: str) -> None:
        """Note a finding."""
        self.findings.append(Finding(kind=kind, package=package, said=said))


def normal_name(name: str) -> str:
    """A package's name as the index compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(constraints: Path) -> dict[str, str]:
    """Versions by name."""
    lines = constraints.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {normal_name(name): version.strip() for name, version in pairs}


def read_direct(project: Path) -> list[str]:
    """Names of the dependencies that pyproject.toml asks for itself, in all extras."""
    table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    extras = table.get("optional-dependencies", {}).values()
    lines = [*table["dependencies"], *(line for extra in extras for line in extra)]
    names = [normal_name(re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0]) for line in lines]
    return sorted(set(names) - {normal_name(table["name"])})


def read_decisions(file: Path) -> Decisions:
    """What was decided."""
    return Decisions(**tomllib.loads(file.read_text(encoding="utf-8")))


def audit_pins(
    audit: Audit, pins: Mapping[str, str], direct: Sequence[str], decided: Decisions
) -> None:
    """Every direct dependency is pinned."""
    for name in direct:
        if name in pins:
            continue
        if name in decided.not_pinned:
            audit.notes.append(f"{name} is not pinned: {decided.not_pinned[name]}")
        else:
            said = "pyproject.toml asks for it, constraints.txt does not pin it; make constraints"
            audit.add("pin", name, said)


def audit_installed(
    audit: Audit,
    pins: Mapping[str, str],
    installed: Mapping[str, Distribution],
    decided: Decisions,
) -> None:
    """What is pinned is installed in that version, its licence is allowed, and it is kept up."""
    for name, version in pins.items():
        if name not in installed:
            audit.add("pin", name, f"{version} is pinned and not installed; make test installs it")
            continue
        here = installed[name].version
        if here.partition("+")[0] != version:
            audit.add("pin", name, f"{version} is pinned, {here} is installed; make constraints")
        _audit_licence(audit, name, installed[name], decided.licences.get(name))
        if INACTIVE not in (installed[name].metadata.get_all("Classifier") or []):
            continue
        if name in decided.inactive:
            why = decided.inactive[name]
            audit.notes.append(f"{name} calls itself inactive and is kept: {why}")
        else:
            audit.add("upkeep", name, "its own metadata call it inactive; look for another")
    extra = sorted(installed.keys() - pins.keys() - set(TOOLS))
    if extra:
        audit.notes.append(f"installed and not pinned, so not audited: {', '.join(extra)}")
    audit.notes.append("whether a release was withdrawn (yanked) is known to the index alone")


def _audit_licence(
    audit: Audit, name: str, package: Distribution, known: Mapping[str, str] | None
) -> None:
    licence = known["licence"] if known else read_licence(package.metadata)
    if licence is None:
        said = f"its metadata tell no licence; find it and write it to scripts/{DECISIONS.name}"
        audit.add("licence", name, said)
    elif known and known.get("reason"):
        told = f"{licence} ({known['source']}): {known['reason']}"
        audit.notes.append(f"{name} is taken with {told}")
    elif not is_allowed(licence):
        said = f"{licence} is not among the licences that are allowed; replace it, or decide on it"
        audit.add("licence", name, said)


def audit_vulnerabilities(audit: Audit, constraints: Path, *, service: str) -> None:
    """Ask a service about every pin."""
    program = AUDIT_PROGRAM if AUDIT_PROGRAM.is_file() else shutil.which("pip-audit")
    if program is None:
        audit.not_checked = (
            "pip-audit is not installed; make audit installs it where the index has it"
        )
        return
    options = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    command = [program, "--requirement", constraints, "--vulnerability-service", service, *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        audit.not_checked = f"the service {service} did not answer within {SECONDS:g} seconds"
        return
    try:
        told = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        audit.not_checked = f"the service {service} could not be asked: {last[:300]}"
        return
    read_vulnerabilities(audit, told, service)


def read_vulnerabilities(audit: Audit, told: Sequence[Mapping[str, object]], service: str) -> None:
    """Take what pip-audit says; a package that was passed over is not one without fault."""
    skipped = [each for each in told if "skip_reason" in each]
    audit.num_asked = len(told) - len(skipped)
    for each in told:
        for fault in each.get("vulns", ()):  # type: ignore[attr-defined]
            fixed = ", ".join(fault["fix_versions"]) or "no release yet"
            audit.add("vulnerability", str(each["name"]), f"{fault['id']}, mended in {fixed}")
    if audit.num_asked < audit.num_packages:
        why = f"; of {skipped[0]['name']}: {skipped[0]['skip_reason']}" if skipped else ""
        audit.not_checked = (
            f"the service {service} told of {audit.num_asked} of {audit.num_packages} packages{why}"
        )


def exit_code(audit: Audit, *, is_offline: bool) -> int:
    """See the module's docstring."""
    if audit.findings:
        return FOUND
    return OK if audit.not_checked is None or is_offline else NOT_CHECKED


def render(audit: Audit) -> str:
    """The audit for people."""
    lines = [f"{len(audit.findings)} findings in {audit.num_packages} pinned packages"]
    lines += [f"  {each.kind}: {each.package}: {each.said}" for each in audit.findings]
    lines += [f"note: {note}" for note in audit.notes]
    if audit.not_checked is None:
        lines.append(f"vulnerabilities: {audit.num_asked} packages checked")
    else:
        lines.append(f"VULNERABILITIES WERE NOT CHECKED: {audit.not_checked}")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit this interpreter's environment."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    parser.add_argument("--offline", action="store_true", help="ask no service")
    parser.add_argument("--service", choices=["osv", "pypi"], default="osv", help="that is asked")
    asked = parser.parse_args(arguments)
    constraints = ROOT / "constraints.txt"
    pins = read_pins(constraints)
    audit = Audit(num_packages=len(pins))
    decided = read_decisions(DECISIONS)
    audit_pins(audit, pins, read_direct(ROOT / "pyproject.toml"), decided)
    installed = {normal_name(each.metadata["Name"]): each for each in distributions()}
    audit_installed(audit, pins, installed, decided)
    if asked.offline:
        audit.not_checked = "--offline was asked for"
    else:
        audit_vulnerabilities(audit, constraints, service=asked.service)
    sys.stdout.write(json.dumps(asdict(audit)) + "\n" if asked.json else render(audit))
    return exit_code(audit, is_offline=asked.offline)


if __name__ == "__main__":
    sys.exit(main())
