"""A file is one noun, says what it is for, and has a mirror among the tests."""

import ast

FORBIDDEN = {"utils", "util", "helpers", "helper", "common", "misc", "base"}

# Modules without a test file of their own, and why. Keep it short.
NO_MIRROR = {
    "mllm_npu/errors.py": "empty classes; the messages are tested where they are raised",
    "mllm_npu/models/interfaces.py": "abstract classes; each part is tested by its own mirror",
}


def is_grab_bag(path: str) -> bool:
    """Whether any part of a path is a name that takes in everything."""
    parts = path.removesuffix(".py").removeprefix("tests/").split("/")
    return any(part.removeprefix("test_") in FORBIDDEN for part in parts)


def mirror_of(path: str) -> str:
    """Where the tests of a module are: mllm_npu/data/plan.py -> tests/data/test_plan.py."""
    folder, _, name = path.rpartition("/")
    folder = folder.removeprefix("mllm_npu").strip("/")
    return "/".join(part for part in ("tests", folder, f"test_{name}") if part)


def test_no_file_is_a_grab_bag(product, test_sources):
    assert [source.path for source in product + test_sources if is_grab_bag(source.path)] == []


def test_the_name_rule_can_fail():
    assert is_grab_bag("mllm_npu/data/utils.py")
    assert is_grab_bag("mllm_npu/common/index.py")
    assert is_grab_bag("tests/data/test_helpers.py")
    assert not is_grab_bag("mllm_npu/data/index.py")


def test_every_file_says_what_it_is_for(product):
    assert [file.path for file in product if not ast.get_docstring(file.tree)] == []


def test_every_module_has_a_mirror_test(package, test_sources):
    tests = {source.path for source in test_sources}
    modules = [source.path for source in package if not source.path.endswith("__init__.py")]
    wanted = {path: mirror_of(path) for path in modules if path not in NO_MIRROR}
    assert {path: mirror for path, mirror in wanted.items() if mirror not in tests} == {}


def test_an_init_file_holds_nothing_that_would_need_a_test(package):
    allowed = ast.Import | ast.ImportFrom | ast.Expr | ast.Assign
    initials = [source for source in package if source.path.endswith("__init__.py")]
    assert initials
    for source in initials:
        assert all(isinstance(node, allowed) for node in source.tree.body), source.path


def test_the_list_of_exceptions_is_not_stale(package, test_sources):
    modules = {source.path: source for source in package}
    tests = {source.path for source in test_sources}
    assert set(NO_MIRROR) <= set(modules)
    assert [path for path in NO_MIRROR if mirror_of(path) in tests] == []


def test_exceptions_hold_no_logic(package):
    """Behind its docstring a function of an exception has at most one statement."""
    for source in package:
        if source.path in NO_MIRROR:
            for node in ast.walk(source.tree):
                if isinstance(node, ast.FunctionDef):
                    statements = len(node.body) - (ast.get_docstring(node) is not None)
                    assert statements <= 1, f"{source.path}:{node.name}"


def test_mirrors_are_derived_from_paths():
    assert mirror_of("mllm_npu/data/plan.py") == "tests/data/test_plan.py"
    assert mirror_of("mllm_npu/cli.py") == "tests/test_cli.py"
