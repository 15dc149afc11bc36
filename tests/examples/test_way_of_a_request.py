def test_events_come_as_they_are_made(run_example, untrained, root, tmp_path):
    out, scan = tmp_path / "drawn.png", root / "demo" / "seven.png"
    said = run_example("way_of_a_request", untrained, "Draw it.", "--image", scan, "--out", out)
    *before, last = said.splitlines()
    assert last.startswith("finished: ")
    assert before
    assert all(line.startswith(("text: ", "picture: ")) for line in before)
    assert out.is_file() == any(line.startswith("picture: ") for line in before)
