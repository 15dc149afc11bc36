"""Only mllm_npu/device and mllm_npu/ops know the names of accelerators, and what measures them."""

import ast
import re

ALLOWED = ("mllm_npu/device/", "mllm_npu/ops/")
# What is written for one kind of accelerator, outside the package.
ALLOWED += (
    "benchmarks/npu_sync",
    "benchmarks/gpu_step",
    "benchmarks/plan_accuracy",
    "scripts/npu_operators",
    "scripts/torch_npu",
)
WORDS = re.compile(r"(?<![a-z0-9])(torch_npu|npu|cuda|hccl|nccl|ascend)(?![a-z0-9])", re.IGNORECASE)
OWN_NAME = re.compile(r"mllm[-_]npu", re.IGNORECASE)


def docstrings(tree: ast.Module) -> set[int]:
    """Identities of the constant nodes that are documentation: strings that stand alone."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def device_words(source) -> list[str]:
    """Every place where code, not documentation, names an accelerator."""
    documentation = docstrings(source.tree)
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words = [] if id(node) in documentation else [node.value]
        elif isinstance(node, ast.Attribute):
            words = [node.attr]
        elif isinstance(node, ast.Name):
            words = [node.id]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            words = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
        else:
            continue
        found += [
            f"{source.path}:{node.lineno} {word!r}"
            for word in words
            if WORDS.search(OWN_NAME.sub("", word))
        ]
    return found


def test_only_device_and_ops_name_an_accelerator(product):
    others = [source for source in product if not source.path.startswith(ALLOWED)]
    # The command line's and the package's one-line description may say what the package is for.
    assert [place for source in others for place in device_words(source)] == []


def test_the_rule_sees_code_and_leaves_documentation(parse):
    assert device_words(parse('"""Runs on npu and cuda."""\nimport mllm_npu.models  # npu\n')) == []
    assert device_words(parse('command = "mllm-npu train"\n')) == []
    assert device_words(parse("class MllmNpuError(Exception):\n    pass\n")) == []
    assert len(device_words(parse("model.cuda()\n"))) == 1
    assert len(device_words(parse("import torch_npu\n"))) == 1
    assert len(device_words(parse("from torch import cuda\n"))) == 1
    assert len(device_words(parse('device = "cuda:0"\n'))) == 1
    assert len(device_words(parse('name = f"{prefix}npu"\n'))) == 1
    assert len(device_words(parse("torch.npu.synchronize()\n"))) == 1


def test_the_table_of_platforms_is_where_the_words_are(product):
    platform = next(file for file in product if file.path == "mllm_npu/device/platform.py")
    assert len(device_words(platform)) >= 5
