"""No recorded file is forgotten."""

import ast
from pathlib import Path

ELSEWHERE = {"checkpoint_layouts": "tests/models/test_weight_layouts.py"}


def claimed():
    """Names that the modules beside this one say they compare with."""
    names = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "GOLDEN":
                value = ast.literal_eval(node.value)
                names |= {value} if isinstance(value, str) else set(value)
    return names


def test_every_recorded_file_is_compared_with(shared):
    recorded = {file.stem for file in (shared / "golden").glob("*.json")}
    assert len(recorded) > 15
    assert recorded - set(ELSEWHERE) == claimed()
