"""What generate, summarize and evaluate have in common: find the model, set it up, write the results."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2seq_cli import console
from seq2seq_cli.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from seq2seq_cli.checkpoint.bundle import Bundle
    from seq2seq_cli.decoding.engine import TextGenerator
    from seq2seq_cli.recipe import Recipe

#: where finetune leaves a link to its last result
LATEST = Path("runs/latest")


def find_model(model: str | None) -> str:
    """The reference to use when no recipe names one: -m, else $S2S_MODEL, else runs/latest."""
    if model is not None:
        return model
    from_environment = os.environ.get("S2S_MODEL")
    if from_environment:
        return from_environment
    if LATEST.exists():
        return str(LATEST)
    raise UsageError(
        "no model is named",
        remedy=f"use -m REF, set S2S_MODEL, or train one (no {LATEST} in this folder)",
    )


def open_model(model: str | None, recipe: Path | None) -> tuple[Bundle, dict[str, Any]]:
    """The bundle, and the generation options of the recipe (none without one).

    With a recipe: its trained ``output``, else its ``model`` section combined in memory.
    """
    from seq2seq_cli.checkpoint.bundle import load_bundle, warn_if_untrained

    options: dict[str, Any] = {}
    if recipe is not None:
        from seq2seq_cli.recipe import load_recipe

        loaded = load_recipe(recipe)
        options = loaded.generation.model_dump(exclude_none=True)
        options.pop("preset", None)  # already merged into the others
        if model is None:
            if loaded.output is not None and (loaded.output / "config.json").is_file():
                model = str(loaded.output)
            else:
                bundle = build_from_recipe(loaded)
                warn_if_untrained(bundle)
                return bundle, options
    bundle = load_bundle(find_model(model))
    warn_if_untrained(bundle)
    return bundle, options


def build_from_recipe(recipe: Recipe) -> Bundle:
    """The model section of a recipe, in memory; tokenizers that it trains see the training rows."""
    from seq2seq_cli.data.sources import read_rows
    from seq2seq_cli.recipe import PAIRED
    from seq2seq_cli.training.models import build_model

    data = recipe.data
    rows = []
    if data.train is not None:
        source = data.source if recipe.training.objective in PAIRED else None
        rows = read_rows(data.train, source=source, target=data.target, on_bad_row=data.on_bad_row)
    return build_model(recipe, rows)


def move(bundle: Bundle, device: str, dtype: str) -> None:
    """Put the model on a device, in a number format. UsageError when the device is not there."""
    import torch

    try:
        bundle.model.to(device=torch.device(device), dtype=getattr(torch, dtype))
    except (RuntimeError, AssertionError) as error:
        what = str(error).splitlines()[0]
        raise UsageError(f"device {device!r} cannot be used: {what}", remedy="see s2s env") from None


def with_preset(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The decoding flags on top of the preset that they name; UsageError when there is no such preset."""
    from seq2seq_cli.recipe import load_preset, merge_generation

    rest = {name: value for name, value in flags.items() if name != "preset"}
    preset = flags.get("preset")
    return merge_generation(load_preset(preset) if preset else {}, rest)


def make_generator(
    bundle: Bundle,
    *,
    recipe_options: Mapping[str, Any],
    given: Mapping[str, Any],
    default_preset: str | None = None,
    batch_tokens: int = 4096,
    truncate: bool = True,
    echo: bool = False,
    with_scores: bool = False,
) -> TextGenerator:
    """A text generator with the options of checkpoint, default preset, recipe, ``given``; the last wins."""
    from seq2seq_cli.decoding import resolve_options
    from seq2seq_cli.decoding.engine import TextGenerator
    from seq2seq_cli.recipe import load_preset, merge_generation

    default = load_preset(default_preset) if default_preset else {}
    options = merge_generation(default, recipe_options, given)
    return TextGenerator(
        bundle.model,
        source_tokenizer=bundle.source_tokenizer,
        target_tokenizer=bundle.target_tokenizer,
        decoding=resolve_options(options, bundle.model.generation, bundle.model.special_ids),
        batch_tokens=batch_tokens,
        truncate=truncate,
        echo=echo,
        with_scores=with_scores,
    )


def source_prefix(bundle: Bundle) -> str:
    """What the model was trained to see before every source."""
    return str(bundle.config.get("s2s", {}).get("source_prefix", ""))


def report_cuts(generator: TextGenerator) -> None:
    """Say how many inputs were not read as they stand."""
    if generator.truncated:
        console.warn(f"{generator.truncated} input(s) were longer than the model takes and were truncated")
    if generator.unreadable:
        console.warn(f"{generator.unreadable} input(s) gave no token; their output is empty")


class LineFile:
    """Lines to a file through ``FILE.part``, renamed when complete; ``resume`` keeps its complete lines.

    ``done`` is the number of lines that are there already.
    """

    def __init__(self, path: Path, *, resume: bool = False, overwrite: bool = False) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self.done = 0
        self.is_complete = False
        if path.exists() and resume:
            self.is_complete = True
            return
        if path.exists() and not overwrite:
            raise UsageError(f"{path} exists", remedy="choose another file, or add --overwrite or --resume")
        try:
            if resume and self._part.exists():
                self.done = _keep_whole_lines(self._part)
            self._file = self._part.open("ab" if self.done else "wb")
        except OSError as error:
            raise ResourceError(f"cannot write: {error.strerror}", where=str(self._part)) from error

    def write(self, lines: list[str]) -> None:
        """Append lines and hand them to the system."""
        try:
            self._file.write("".join(line + "\n" for line in lines).encode("utf-8", "replace"))
            self._file.flush()
        except OSError as error:
            raise ResourceError(f"cannot write: {error.strerror}", where=str(self._part)) from error

    def close(self) -> None:
        """Everything is written: give the file its name."""
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            self._part.replace(self._path)
        except OSError as error:
            raise ResourceError(f"cannot write: {error.strerror}", where=str(self._path)) from error


def _keep_whole_lines(part: Path) -> int:
    """Cut a half-written last line off; the number of whole ones."""
    with part.open("rb+") as file:
        lines, end = 0, 0
        for line in file:
            if line.endswith(b"\n"):
                lines, end = lines + 1, end + len(line)
        file.truncate(end)
    return lines
