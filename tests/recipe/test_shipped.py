"""What comes with s2s: every recipe and preset is valid, and the README names nothing that is not there."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

from seq2seq_cli import cli, resources
from seq2seq_cli.recipe import Turns, load, load_preset, load_recipe

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(resources.folder("recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_recipes_are_valid_and_say_what_they_are(path: Path) -> None:
    recipe = load(path)
    assert isinstance(recipe, Turns) or recipe.output is not None
    assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize(
    "path", sorted(resources.folder("configs").glob("decoding/*.yaml")), ids=lambda p: p.stem
)
def test_presets_are_valid(path: Path) -> None:
    assert load_preset(path.stem)


@pytest.mark.parametrize(
    "path", sorted(resources.folder("configs").glob("accelerate/*.yaml")), ids=lambda p: p.stem
)
def test_launch_files_are_accelerates(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    assert load_config_from_file(str(path)).num_processes == yaml.safe_load(path.read_text())["num_processes"]


def test_the_recipe_of_the_readme_is_valid(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "recipe.yaml").write_text(block)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.data.test is not None, "the README evaluates it"


def _commands() -> list[list[str]]:
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
    lines = [part for line in blocks.split("\n") for part in line.split("|")]
    words = [shlex.split(line, comments=True) for line in lines if line.strip().startswith("s2s ")]
    return [each[1:] for each in words]


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_the_commands_of_the_readme_parse(words: list[str]) -> None:
    group = typer.main.get_command(cli.app)
    with group.make_context("s2s", list(words), resilient_parsing=False) as context:
        name, command, rest = group.resolve_command(context, words)  # type: ignore[attr-defined]
        if not hasattr(command, "commands"):
            command.make_context(name, rest, parent=context).close()
        else:
            assert rest[0] in command.commands


def test_files_that_the_readme_names_exist() -> None:
    for name in re.findall(r"`((?:recipes|docs|scripts|tests|seq2seq_cli)/[\w./-]+)`", README):
        assert (ROOT / name).exists(), name


def test_recipes_that_the_readme_runs_were_copied_or_written_before() -> None:
    """Every FILE.yaml of a command is the README's own, or comes from an earlier `recipes cp`; what is
    evaluated was trained."""
    copied, trained = {"recipe"}, set()
    for words in _commands():
        files = [word.removesuffix(".yaml") for word in words if word.endswith(".yaml")]
        if words[:2] == ["recipes", "cp"]:
            copied.add(words[2])
        assert set(files) <= copied, words
        if words[0] == "finetune":
            trained |= set(files)
        if words[0] == "evaluate":
            assert set(files) <= trained, words


def test_sql_in_the_readmes_pipe_ends_with_semicolons() -> None:
    """sqlite3 reads statements; generate writes lines."""
    lines = [line for line in README.split("\n") if "| sqlite3" in line]
    assert lines
    for line in lines:
        between = line.split("| sqlite3")[0].split("|")[-1].strip()
        done = subprocess.run(["sh", "-c", between], input="SELECT 1\nSELECT 2\n", text=True,
                              capture_output=True, check=True)  # fmt: skip
        assert done.stdout == "SELECT 1;\nSELECT 2;\n"
