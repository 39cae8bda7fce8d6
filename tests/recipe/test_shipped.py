"""What comes with s2s: every recipe and preset is valid, and the README names nothing that is not there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from seq2seq_cli import cli, resources
from seq2seq_cli.recipe import load_preset, load_recipe

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(resources.folder("recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_recipes_are_valid_and_say_what_they_are(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.output is not None
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
    load_recipe(tmp_path / "recipe.yaml")


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
