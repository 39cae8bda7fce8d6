"""Tiny runs in a folder of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from seq2seq_cli.recipe import Recipe, load_recipe
from tests.training.helpers import RECIPE, write_data


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a test, with data in it."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    return tmp_path


@pytest.fixture
def recipe(workplace: Path) -> Callable[..., Recipe]:
    """Make a recipe: ``recipe("training.seed=3", ...)``; ``text`` is another one's YAML."""

    def make(*overrides: str, text: str = RECIPE) -> Recipe:
        path = workplace / "recipe.yaml"
        path.write_text(text)
        return load_recipe(path, overrides)

    return make
