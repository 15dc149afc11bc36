"""The look: system fonts only, and rules a browser can read."""

import re

from mllm_npu.serve.page.style import CSS, ICON, make_theme


def test_no_font_is_fetched():
    theme = make_theme()
    assert theme._font_css == []
    assert theme._stylesheets == []
    assert "system-ui" in theme.font


def test_nothing_is_fetched_by_the_rules():
    assert "url(" not in CSS
    assert "@import" not in CSS
    assert "http" not in CSS
    assert ICON.startswith("data:image/svg+xml,")


def test_braces_are_balanced_and_a_phone_is_thought_of():
    assert CSS.count("{") == CSS.count("}")
    assert re.search(r"@media \(max-width: \d+px\)", CSS)
