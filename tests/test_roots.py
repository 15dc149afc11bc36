from dataclasses import fields

from mllm_npu.config import CONFIG_FOLDER
from mllm_npu.roots import ROOTS, EvaluationRoot


def test_every_root_has_a_file_and_explains_its_keys():
    for name, root in ROOTS.items():
        assert (CONFIG_FOLDER / f"{name}.yaml").is_file()
        for field in fields(root):
            documents = " ".join(kind.__doc__ or "" for kind in root.__mro__)
            explained = field.name in documents or field.name in {
                "name",
                "tokenizer",
                "processor",
                "models",
                "lora",
                "generation",
                "world_dir",
            }
            assert explained, (name, field.name)


def test_an_evaluation_names_a_folder():
    root = EvaluationRoot(data="data/benchmarks")
    assert root.task == root.generation == {}
