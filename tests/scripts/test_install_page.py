import importlib.metadata

import pytest


@pytest.fixture
def script(load_script):
    return load_script("install_page")


def test_a_need_keeps_its_bounds_and_loses_its_marker(script):
    lines = [
        "anyio<5.0,>=3.0",
        "Pillow<13.0,>=8.0",
        'uvicorn>=0.14; python_version >= "3.0"',
        'audioop-lts<=0.2.2; python_version >= "9.0"',
        'mcp<2.0.0,>=1.21.0; extra == "mcp"',
    ]
    assert script.needs(lines) == ["anyio<5.0,>=3.0", "uvicorn>=0.14"]


def test_what_gradio_needs_is_here_beside_the_pinned_pillow(script):
    assert importlib.metadata.version("gradio") == script.pinned_version(
        script.CONSTRAINTS, "gradio"
    )
    assert importlib.metadata.version("pillow") == script.pinned_version(
        script.CONSTRAINTS, "pillow"
    )
    wanted = script.needs(importlib.metadata.requires("gradio"))
    assert any(line.startswith("starlette") for line in wanted)
    for line in wanted:
        requirement = script.Requirement(line)
        assert requirement.specifier.contains(importlib.metadata.version(requirement.name)), line
