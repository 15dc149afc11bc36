def test_each_step_of_the_way_is_told(run_example, quiet, digits, tmp_path):
    said = run_example("way_of_a_sample", f"world_dir={digits}", *quiet, folder=tmp_path)
    begins = [line.partition(":")[0] for line in said.splitlines()]
    assert begins[:4] == ["row", "conversation", "sample", "batch"]
    assert {"loss language", "loss image"} <= set(begins)
    assert "tiles torch.uint8" in said
