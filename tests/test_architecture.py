"""The rooms of the house: who may import whom, and how large things may grow."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import seq2seq_cli

ROOT = Path(seq2seq_cli.__file__).parent
#: room -> the rooms it may import besides errors, console and the version; arrows point down only.
#: Lazy imports count. checkpoint sees text because a bundle holds both tokenizers; decoding sees recipe
#: because the limits of its options are stated once, there; evaluation runs a
#: model over a data set, so it sees both.
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "console": set(),
    "resources": set(),
    "pictures": set(),
    "charts": set(),
    "environment": set(),
    "text": set(),
    "model": set(),
    "families": {"model"},
    "recipe": {"resources"},
    "checkpoint": {"families", "model", "text"},
    "combiner": {"checkpoint", "families", "model", "text"},
    "data": {"text"},
    "processes": {"text"},
    "decoding": {"model", "recipe", "text"},
    "evaluation": {"checkpoint", "data", "decoding", "model", "text"},
    "tasks": {"decoding", "text"},
    "training": {
        *("checkpoint", "combiner", "data", "decoding", "evaluation", "families", "model", "recipe", "text"),
        *("charts", "environment"),
    },
    "api": {"checkpoint", "combiner", "data", "decoding", "families", "model", "recipe", "text"},
    "__init__": {"api", "decoding"},
    "__main__": {"cli"},
}
LEAVES = {"errors", "console", "__version__"}
#: need nothing that is slow to import
WITHOUT_TORCH = ("seq2seq_cli", "seq2seq_cli.cli", "seq2seq_cli.recipe", "seq2seq_cli.text.tokenizer")
HEAVY = ("torch", "transformers", "datasets", "accelerate", "sacrebleu", "rouge_score", "pyarrow", "numpy")
FORBIDDEN = {"transformers", "peft", "evaluate", "sentence_transformers"}
FAMILY_NAMES = ("bert", "gpt", "t5", "bart", "xlnet", "xlm", "ctrl", "camembert")
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_FIELDS = 350, 70, 30

FILES = sorted(path for path in ROOT.rglob("*.py") if "_shipped" not in path.parts)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, anywhere in it, relative imports resolved."""
    package = ["seq2seq_cli", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (ast.literal_eval(arg) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_room_is_known() -> None:
    rooms = {room_of(path) for path in FILES}
    assert rooms - {"cli"} == set(ARROWS), "a new room needs its arrows in this table and in the design"


def test_arrows_point_down() -> None:
    for room, below in ARROWS.items():
        for other in below:
            assert room not in ARROWS.get(other, set()), f"{room} and {other} import each other"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports(path: Path) -> None:
    room, seen = room_of(path), set(imports(path))
    foreign = {name.split(".")[0] for name in seen} & FORBIDDEN
    assert not foreign, "a development dependency only"
    rooms = {name.split(".")[1] for name in seen if name.startswith("seq2seq_cli.")}
    if room == "cli":
        return
    allowed = ARROWS[room] | {room} | LEAVES
    if room == "errors":
        allowed = set()
    assert rooms <= allowed, f"{room} must not import {sorted(rooms - allowed)}"
    if room == "model":
        assert {name.split(".")[0] for name in seen} - set(sys.stdlib_module_names) <= {
            "torch",
            "seq2seq_cli",
        }
        assert rooms <= {"model"}


def test_imports_are_seen_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check itself: lazy, relative and dynamic imports."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "x.py"
    path.write_text(
        "import torch.nn\n"
        "def f():\n    from seq2seq_cli import families\n    from ..data import rows\n"
        "    from . import layer\n"
        "    import_module('seq2seq_cli.cli')\n"
    )
    assert set(imports(path)) == {
        *("torch.nn", "seq2seq_cli.families", "seq2seq_cli.data.rows", "seq2seq_cli.model.layer"),
        "seq2seq_cli.cli",
    }


def test_the_model_layer_knows_no_family() -> None:
    """In its code; comments and docstrings may say where an idea comes from."""
    for path in (ROOT / "model").glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
        words += [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        words += [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
        words += [node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        words += [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value
        ]
        named = [word for word in words if any(family in word.lower() for family in FAMILY_NAMES)]
        assert not named, f"{path.name}: {named}"


def test_families_build_no_module() -> None:
    for path in (ROOT / "families").glob("*.py"):
        seen = set(imports(path))
        assert not any(name.startswith("torch.nn") for name in seen), path.name
        modules = {"Stack", "EncoderDecoder", "Layer", "Attention", "Head", "nn"}
        assert not {name.split(".")[-1] for name in seen} & modules, path.name


def test_stack_config_stays_small() -> None:
    from seq2seq_cli.model import EmbeddingConfig, HeadConfig, RelativePositions, StackConfig

    for config in (StackConfig, EmbeddingConfig, HeadConfig, RelativePositions):
        assert len(fields(config)) <= MOST_FIELDS


def test_a_layer_has_few_branches() -> None:
    tree = ast.parse((ROOT / "model" / "layer.py").read_text(encoding="utf-8"))
    layer = next(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == "Layer")
    methods = [n for n in layer.body if isinstance(n, ast.FunctionDef) and n.name != "__init__"]
    branches = [n for m in methods for n in ast.walk(m) if isinstance(n, (ast.If, ast.IfExp))]
    assert len(branches) <= 3


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            # without the signature: that of a command is a long list of options
            lines = (node.end_lineno or node.lineno) - node.body[0].lineno + 1
            assert lines <= MOST_LINES_OF_A_FUNCTION, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_quick_to_import(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
