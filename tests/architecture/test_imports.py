"""Libraries stay in the rooms they belong to, and what is unsafe stays out."""

import ast

import pytest

CONFIG_FILES = ("mllm_npu/config.py", "mllm_npu/build.py")
CONFIG_LIBRARIES = ("hydra", "omegaconf")
NOT_FOR_TRAINING = (
    "PIL",
    "tokenizers",
    "transformers",
    "simplejpeg",
    "mllm_npu.processing",
)
NEVER = ("torchvision", "pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve")
# Reads the original's documents, and refuses whatever is not plain values.
PICKLE_ROOM = "mllm_npu/data/convert/plain_pickle.py"


def imported(source, libraries: tuple[str, ...]) -> list[str]:
    """Places where a file imports one of the libraries or something inside one."""
    return [
        f"{source.path}:{line} {name}"
        for line, name in source.imports()
        if any(name == library or name.startswith(f"{library}.") for library in libraries)
    ]


def call_name(call: ast.Call) -> str:
    """Dotted name of what is called; the last part alone where it hangs on an expression."""
    return ast.unparse(call.func)


def is_true(call: ast.Call, keyword: str) -> bool:
    """Whether a call passes ``keyword=True``."""
    return any(
        entry.arg == keyword and isinstance(entry.value, ast.Constant) and entry.value.value is True
        for entry in call.keywords
    )


def unsafe_calls(source) -> list[str]:
    """Calls that run code from a file, or write a file that would."""
    found = []
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        name = call_name(node)
        unsafe = (
            (name == "torch.load" and not is_true(node, "weights_only"))
            or name in {"torch.save", "eval", "exec"}
            or is_true(node, "trust_remote_code")
            or is_true(node, "allow_pickle")
        )
        if unsafe:
            found.append(f"{source.path}:{node.lineno} {name}")
    return found


def names_used(source) -> set[str]:
    """Every identifier of a file."""
    walked = list(ast.walk(source.tree))
    names = {node.id for node in walked if isinstance(node, ast.Name)}
    names |= {node.attr for node in walked if isinstance(node, ast.Attribute)}
    return names | {name.rpartition(".")[2] for _, name in source.imports()}


def below(sources, folder: str):
    return [source for source in sources if source.path.startswith(f"mllm_npu/{folder}/")]


def test_only_config_and_build_know_hydra(product):
    others = [source for source in product if source.path not in CONFIG_FILES]
    assert [place for file in others for place in imported(file, CONFIG_LIBRARIES)] == []


def test_config_and_build_do_know_hydra(product):
    for path in CONFIG_FILES:
        file = next(source for source in product if source.path == path)
        assert imported(file, CONFIG_LIBRARIES)


def test_training_touches_no_pictures_and_no_tokenizer(package):
    training = below(package, "train")
    assert training
    assert [place for file in training for place in imported(file, NOT_FOR_TRAINING)] == []


def test_serving_touches_no_tensors(package):
    serving = below(package, "serve")
    if not serving:
        pytest.skip("there is no mllm_npu/serve yet")
    assert [place for file in serving for place in imported(file, ("torch",))] == []


def test_what_is_unsafe_or_broken_stays_out(product):
    others = [file for file in product if file.path != PICKLE_ROOM]
    assert [place for file in others for place in imported(file, NEVER)] == []
    assert [place for file in product for place in unsafe_calls(file)] == []


def test_pickle_has_one_room(product):
    room = next(file for file in product if file.path == PICKLE_ROOM)
    assert [place.split()[1] for place in imported(room, NEVER)] == ["pickle"]


def test_processors_are_built_by_class(product):
    """AutoProcessor fails without torchvision, also where only pictures are processed."""
    forbidden = {"AutoProcessor", "AutoVideoProcessor"}
    assert [file.path for file in product if names_used(file) & forbidden] == []


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.save(state, path)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "numpy.load(path, allow_pickle=True)",
        "eval(text)",
    ],
)
def test_the_rule_sees_an_unsafe_call(parse, line):
    assert len(unsafe_calls(parse(line))) == 1


def test_the_rules_leave_safe_calls_alone(parse):
    assert unsafe_calls(parse("torch.load(path, weights_only=True)\nmodel.eval()\n")) == []
    assert imported(parse("import picklescan\nfrom torch import vision\n"), NEVER) == []
    assert imported(parse("import torchvision.io\nfrom pickle import loads\n"), NEVER) == [
        "example.py:1 torchvision.io",
        "example.py:2 pickle.loads",
    ]
    assert "AutoProcessor" in names_used(parse("from transformers import AutoProcessor\n"))
