def test_the_projector_of_the_file_is_trained(run_example, quiet, digits, tmp_path):
    places = (f"world_dir={digits}", f"output_dir={tmp_path}")
    said = run_example("add_projector", "--steps", 2, *quiet, *places, folder=tmp_path)
    assert said.strip() == "GatedProjector 2 updates"
