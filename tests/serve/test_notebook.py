"""The notebook of the demo runs from top to bottom against a worker."""

import nbclient
import nbformat
import pytest

from mllm_npu.processing.conversation import Text


@pytest.mark.slow
def test_the_notebook_runs(scripted, root, monkeypatch):
    notebook = nbformat.read(root / "demo/demo.ipynb", as_version=4)
    nbformat.validate(notebook)
    with scripted.running() as worker:
        monkeypatch.setenv("MLLM_NPU_URL", worker.url)
        client = nbclient.NotebookClient(
            notebook,
            timeout=60,
            kernel_name="python3",
            resources={"metadata": {"path": str(root / "demo")}},
        )
        client.execute()
        asked = [conversation for conversation, _ in worker.answerer.asked]
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "Hello world" in printed
    shown = [output for output in outputs if output.output_type == "display_data"]
    assert len(shown) == 4
    assert all("image/png" in output.data for output in shown)
    assert asked[0].turns[0].parts[-1] == Text(text="Which digit is this?")


def test_it_holds_no_results(root):
    notebook = nbformat.read(root / "demo/demo.ipynb", as_version=4)
    assert [
        cell.outputs for cell in notebook.cells if cell.cell_type == "code" and cell.outputs
    ] == []
