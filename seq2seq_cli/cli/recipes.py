"""``s2s recipes``: the recipes that come with s2s, and the check of any recipe."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from seq2seq_cli import console, resources
from seq2seq_cli.cli.options import Overrides, Overwrite, new_app
from seq2seq_cli.errors import UsageError, nearest

app = new_app(help="List, show, copy and check recipes.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A name that `s2s recipes ls` lists.")]


@app.command("ls")
def list_recipes() -> None:
    """List the recipes that come with s2s, one a line."""
    files = _shipped()
    width = max((len(name) for name in files), default=0)
    for name, file in files.items():
        print(f"{name:<{width}}  {_description(file)}".rstrip())


@app.command()
def show(name: Name) -> None:
    """Print a recipe."""
    sys.stdout.write(_find(name).read_text(encoding="utf-8"))


@app.command()
def cp(
    name: Name,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Default: NAME.yaml; - is stdout.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Copy a recipe, and make the data that it trains on where it comes with some."""
    shipped = _find(name)
    target = Path(f"{name}.yaml") if file is None else file
    target = target / f"{name}.yaml" if target.is_dir() else target
    from seq2seq_cli.tasks import recipe_data
    from seq2seq_cli.text.destination import Destination

    with Destination(target, overwrite=overwrite) as destination:
        maker = None if destination.is_stdout else recipe_data(name)
        if maker is not None:
            _make_data(maker, target.parent / _data_folder(shipped), overwrite=overwrite)
        destination.write(shipped.read_text(encoding="utf-8"))
    if destination.is_stdout:
        return
    console.say(f"wrote {target}")
    if maker is not None and target.parent.resolve() != Path.cwd():
        console.say(f"run it from {target.parent}: its paths are relative to the current folder")


@app.command()
def validate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recipe; - is stdin.")],
    overrides: Overrides = None,
) -> None:
    """Check a recipe and report everything that is wrong with it."""
    from seq2seq_cli.recipe import Recipe, load

    recipe = load(file, overrides or ())
    if isinstance(recipe, Recipe) and any(
        side and side.family for side in (recipe.model.encoder, recipe.model.decoder)
    ):
        from seq2seq_cli.training.models import check_scratch  # the families bring torch along

        check_scratch(recipe)
    print(f"{file}: ok")


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from seq2seq_cli.recipe import json_schema

    print(json.dumps(json_schema(), indent=2))


def _shipped() -> dict[str, Path]:
    return {file.stem: file for file in sorted(resources.folder("recipes").glob("*.yaml"))}


def _find(name: str) -> Path:
    files = _shipped()
    if name not in files:
        raise UsageError(f"no recipe named {name!r}", where="s2s recipes", remedy=nearest(name, files))
    return files[name]


def _description(file: Path) -> str:
    """The first comment line of a recipe."""
    with file.open(encoding="utf-8") as lines:
        return next((line.lstrip("# ").rstrip() for line in lines if line.startswith("#")), "")


def _data_folder(recipe: Path) -> Path:
    """The folder that a recipe's training data lies in, as the recipe writes it."""
    from seq2seq_cli.recipe import load_recipe

    train = load_recipe(recipe).data.train
    if not isinstance(train, str) or Path(train).is_absolute() or len(Path(train).parts) < 2:
        raise ValueError(f"{recipe.name}: data.train is not a file in a folder of its own")
    return Path(train).parent


def _make_data(maker: Callable[[Path], None], folder: Path, *, overwrite: bool) -> None:
    """Let ``maker`` fill ``folder``: under another name first, so that it is there whole or not at all."""
    if folder.exists() and not overwrite:
        console.say(f"kept the data in {folder}/ (--overwrite makes it anew)")
        return
    from seq2seq_cli.text.destination import writing

    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    with writing(folder):
        part.mkdir(parents=True)
    try:
        maker(part)
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    console.say(f"wrote the data that the recipe trains on into {folder}/")
