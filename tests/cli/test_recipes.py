"""``s2s recipes``: listing, showing, copying and checking."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from seq2seq_cli import cli, console, resources, tasks
from seq2seq_cli.errors import ResourceError, UsageError

RECIPE = """\
# Say hello: the smallest recipe.
model: {encoder: bert}
data: {train: hello-data/train.jsonl}
"""


@pytest.fixture(autouse=True)
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two shipped recipes, of which ``hello`` brings data; the current folder is empty."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "hello.yaml").write_text(RECIPE)
    (folder / "plain-one.yaml").write_text("model: {encoder: bert}\n")
    here = resources.folder

    def replaced(name: str) -> Path:
        return folder if name == "recipes" else here(name)

    monkeypatch.setattr(resources, "folder", replaced)
    monkeypatch.setattr(tasks, "recipe_data", lambda name: make_data if name == "hello" else None)
    monkeypatch.setattr(console, "verbosity", 0)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def make_data(folder: Path) -> None:
    (folder / "train.jsonl").write_text("{}\n")


Said = Callable[[], tuple[str, str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    def read() -> tuple[str, str]:
        out, err = capsys.readouterr()
        return out, err

    return read


def test_ls_names_and_describes(said: Said) -> None:
    cli.run(["recipes", "ls"])
    assert said() == ("hello      Say hello: the smallest recipe.\nplain-one\n", "")


def test_show(said: Said) -> None:
    cli.run(["recipes", "show", "hello"])
    assert said() == (RECIPE, "")


@pytest.mark.parametrize("command", ["show", "cp"])
@pytest.mark.parametrize("name", ["helo", "hello.yaml", "./hello"])
def test_unknown_name(command: str, name: str) -> None:
    with pytest.raises(UsageError, match=r"no recipe named .* · did you mean 'hello'\?"):
        cli.run(["recipes", command, name])
    assert list(Path.cwd().iterdir()) == []


def test_cp_writes_recipe_and_data(said: Said) -> None:
    cli.run(["recipes", "cp", "hello"])
    out, err = said()
    assert out == ""
    assert err.splitlines() == [
        "wrote the data that the recipe trains on into hello-data/",
        "wrote hello.yaml",
    ]
    assert Path("hello.yaml").read_text() == RECIPE
    assert sorted(str(path) for path in Path().rglob("*")) == [
        "hello-data",
        "hello-data/train.jsonl",
        "hello.yaml",
    ]


def test_cp_without_data(said: Said) -> None:
    cli.run(["recipes", "cp", "plain-one", "mine.yaml"])
    assert said() == ("", "wrote mine.yaml\n")
    assert [path.name for path in Path().iterdir()] == ["mine.yaml"]


def test_cp_into_a_folder_says_where_to_run(said: Said) -> None:
    Path("sub").mkdir()
    cli.run(["recipes", "cp", "hello", "sub"])
    assert Path("sub/hello.yaml").exists()
    assert Path("sub/hello-data/train.jsonl").exists()
    assert "run it from sub" in said()[1]


def test_cp_to_stdout(said: Said) -> None:
    cli.run(["recipes", "cp", "hello", "-"])
    assert said() == (RECIPE, "")
    assert list(Path.cwd().iterdir()) == []


def test_cp_refuses_to_overwrite_unless_asked() -> None:
    Path("hello.yaml").write_text("mine")
    with pytest.raises(UsageError, match=r"the file exists · hello.yaml · add --overwrite"):
        cli.run(["recipes", "cp", "hello"])
    assert [path.name for path in Path().iterdir()] == ["hello.yaml"]
    assert Path("hello.yaml").read_text() == "mine"
    cli.run(["recipes", "cp", "hello", "--overwrite"])
    assert Path("hello.yaml").read_text() == RECIPE


def test_cp_follows_links_and_writes_straight_into_pipes() -> None:
    Path("target").write_text("old")
    Path("link").symlink_to("target")
    cli.run(["recipes", "cp", "plain-one", "link", "--overwrite"])
    assert Path("link").is_symlink()
    assert Path("target").read_text() == "model: {encoder: bert}\n"
    os.mkfifo("pipe")
    reading = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    cli.run(["recipes", "cp", "plain-one", "pipe"])
    assert os.read(reading, 100) == b"model: {encoder: bert}\n"
    os.close(reading)
    assert Path("pipe").is_fifo()


def test_cp_into_a_folder_that_is_not_there() -> None:
    with pytest.raises(ResourceError, match=r"the folder gone does not exist · gone/x\.yaml · make it first"):
        cli.run(["recipes", "cp", "hello", "gone/x.yaml"])
    assert list(Path.cwd().iterdir()) == []


def test_cp_keeps_data_unless_asked(said: Said) -> None:
    Path("hello-data").mkdir()
    Path("hello-data/mine").write_text("x")
    cli.run(["recipes", "cp", "hello"])
    assert "kept the data in hello-data/" in said()[1]
    assert [path.name for path in Path("hello-data").iterdir()] == ["mine"]
    cli.run(["recipes", "cp", "hello", "--overwrite"])
    assert [path.name for path in Path("hello-data").iterdir()] == ["train.jsonl"]


def test_cp_leaves_nothing_when_the_data_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        (folder / "train.jsonl").write_text("half")
        raise OSError("disk")

    monkeypatch.setattr(tasks, "recipe_data", lambda name: fail)
    with pytest.raises(OSError, match="disk"):
        cli.run(["recipes", "cp", "hello"])
    assert list(Path.cwd().iterdir()) == []


def test_validate_says_ok(said: Said) -> None:
    Path("good.yaml").write_text(RECIPE)
    cli.run(["recipes", "validate", "good.yaml"])
    assert said() == ("good.yaml: ok\n", "")


def test_validate_reports_all(said: Said) -> None:
    Path("bad.yaml").write_text("model: {encodr: bert}\ndata: {train: 3}\n")
    with pytest.raises(UsageError) as caught:
        cli.run(["recipes", "validate", "bad.yaml", "--set", "training.seed=x"])
    assert [finding.where for finding in caught.value.findings] == [
        "bad.yaml:1:9",
        "bad.yaml:2:15",
        "--set training.seed=x",
    ]
    assert said() == ("", "")


def test_validate_knows_the_families(said: Said) -> None:
    """What is wrong with sides from scratch is told of both at once, each with its line."""
    sides = "  encoder: {family: brt, tokenizer: t}\n"
    sides += "  decoder: {family: gpt2, config: {n_layr: 1, n_head: 2, nope: 3}, tokenizer: t}\n"
    Path("bad.yaml").write_text(f"model:\n{sides}data: {{train: t}}\n")
    with pytest.raises(UsageError) as caught:
        cli.run(["recipes", "validate", "bad.yaml"])
    found = [(finding.what, finding.where) for finding in caught.value.findings]
    assert found == [
        ("unknown family 'brt'", "bad.yaml:2:21"),
        ("'n_layr' is not an option of gpt2", "bad.yaml:3:44"),
        ("'nope' is not an option of gpt2", "bad.yaml:3:64"),
    ]
    assert caught.value.findings[1].remedy == "did you mean 'n_layer'?"


def test_schema_is_json(said: Said) -> None:
    cli.run(["recipes", "schema"])
    assert json.loads(said()[0])["title"] == "s2s recipe"


def test_missing_recipe_that_is_a_shipped_name() -> None:
    with pytest.raises(UsageError, match=r"`s2s recipes cp hello` makes it"):
        cli.run(["recipes", "validate", "hello"])


def test_listing_reads_no_recipe() -> None:
    """``ls`` stays quick: it needs neither the YAML reader nor the models of the sections."""
    code = "import sys; from seq2seq_cli.__main__ import main; main(['recipes', 'ls'])\n"
    code += "print({'yaml', 'seq2seq_cli.recipe', 'torch'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "set()"
