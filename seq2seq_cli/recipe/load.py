"""Reading recipes and decoding presets: file + overrides -> checked sections with their places."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, NoReturn

from pydantic import TypeAdapter

from seq2seq_cli import resources
from seq2seq_cli.errors import Finding, UsageError, nearest
from seq2seq_cli.recipe import yaml12
from seq2seq_cli.recipe.checks import generation_problems, merge_generation, recipe_problems
from seq2seq_cli.recipe.generation import GenerationSection
from seq2seq_cli.recipe.problems import Problem
from seq2seq_cli.recipe.sections import (
    SMALLER_IS_BETTER,
    DataSection,
    ModelSection,
    RecipeFile,
    TrainingSection,
)
from seq2seq_cli.recipe.turns import Turns, TurnsFile, resolve_turns, turns_problems
from seq2seq_cli.recipe.validation import validate
from seq2seq_cli.recipe.yaml12 import Document, Path, Place

_LARGEST_FILE = 1 << 18
_GENERATION: Path = ("generation",)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A checked recipe. Defaults that depend on other values, and presets, are filled in."""

    model: ModelSection
    data: DataSection
    training: TrainingSection
    generation: GenerationSection
    output: FilePath | None
    #: the file it came from
    file: str
    document: Document = field(repr=False, compare=False)

    def dump_yaml(self) -> str:
        """The resolved recipe as YAML; :func:`load_recipe` reads it back to the same values."""
        sections: dict[str, Any] = {}
        for name in ("model", "data", "training", "generation"):
            if name != "training" or ("training",) in self.document.keys:
                sections[name] = getattr(self, name).model_dump(mode="json", exclude_none=True)
        for side in ("encoder", "decoder"):
            if side in sections["model"]:
                chosen = getattr(self.model, side).model_dump(mode="json", exclude_defaults=True)
                sections["model"][side] = chosen
        if self.output is not None:
            return yaml12.dump({**sections, "output": str(self.output)})
        return yaml12.dump(sections)


def load_recipe(path: FilePath, overrides: Sequence[str] = ()) -> Recipe:
    """As ``load``, for what only a recipe with a model has a use for."""
    found = load(path, overrides)
    if isinstance(found, Turns):
        remedy = "`s2s generate --recipe FILE` plays it"
        raise UsageError(
            "a recipe of turns has no model of its own", where=found.turns[0].where, remedy=remedy
        )
    return found


def load(path: FilePath, overrides: Sequence[str] = ()) -> Recipe | Turns:
    """Read and check a recipe of either kind; ``-`` is stdin. Each override is ``section.key=value``, value
    in YAML.

    Raises:
        UsageError: with everything that is wrong at once, each with ``file:line:column``.
    """
    name = "<stdin>" if str(path) == "-" else str(path)
    document = yaml12.parse(_read(path, name), name)
    if document.value is None and () not in document.broken:
        _refuse(Finding("the recipe is empty", name, "`s2s recipes ls` lists recipes to start from"))
    if not isinstance(document.value, dict):
        document.problems.append(
            (
                document.place(()),
                Finding("a recipe is a mapping of sections", str(document.place(())), "start with `model:`"),
            )
        )
        _refuse(*(finding for _, finding in document.problems))
    for override in overrides:
        _override(document, override)
    raw = {n: {} if v is None and n != "output" else v for n, v in document.value.items()}
    presets, problems = _presets(raw, document)
    checked: RecipeFile | TurnsFile | None
    if "turns" in raw:
        checked, more = validate(TurnsFile, raw, turns_problems, broken=document.broken)
    else:
        checked, more = validate(RecipeFile, raw, recipe_problems, broken=document.broken)
    found = [*document.problems, *problems, *_findings(more, document)]
    if found or checked is None:
        _refuse(*(finding for _, finding in sorted(found, key=lambda pair: (pair[0].line == 0, pair[0]))))
    if isinstance(checked, TurnsFile):
        return resolve_turns(checked, presets, document)
    return _resolve(checked, presets.get(_GENERATION, {}), name, document)


def where_of(recipe: Recipe, key: str) -> str:
    """Where ``section.key`` was written, as ``file:line:column`` (its nearest parent when it was not)."""
    path: Path = tuple(int(part) if part.isdigit() else part for part in key.split("."))
    return str(recipe.document.place(path))


def require(recipe: Recipe, *keys: str, purpose: str) -> None:
    """Raise a UsageError for each of ``keys`` (``data.train``, ``output``) that ``recipe`` does not set."""
    findings = []
    for key in keys:
        value: Any = recipe
        for part in key.split("."):
            value = getattr(value, part)
        if value is None:
            findings.append(
                Finding(f"{purpose} needs {key}", where_of(recipe, key), f"add {key} to the recipe")
            )
    if findings:
        raise UsageError(findings=findings)


def load_preset(name: str, *, where: str = "") -> dict[str, Any]:
    """The decoding options of ``configs/decoding/NAME.yaml``. Raises UsageError for an unknown name."""
    files = {file.stem: file for file in sorted((resources.folder("configs") / "decoding").glob("*.yaml"))}
    if name not in files:
        raise UsageError(f"no preset named {name!r}", where=where, remedy=nearest(name, files))
    document = yaml12.parse(_read(files[name], files[name].name), files[name].name)
    section = generation_section(document.value, where=lambda key: str(document.place((key,))))
    return section.model_dump(exclude_none=True)


def generation_section(values: Mapping[str, Any], *, where: Callable[[str], str]) -> GenerationSection:
    """Check decoding options from anywhere: flags, Python calls, files. None = not set.

    Args:
        where: gives the place to name for an option, as ``--num-beams``.

    Raises:
        UsageError: with all findings at once.
    """
    section, problems = validate(GenerationSection, dict(values), generation_problems)
    if section is None:
        findings = [Finding(each.what, where(str(each.paths[0][0])), each.remedy) for each in problems]
        raise UsageError(findings=findings)
    return section


def json_schema() -> dict[str, Any]:
    """The JSON Schema of recipes, for editors."""
    schema = TypeAdapter(RecipeFile | TurnsFile).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "s2s recipe"}


def _refuse(*findings: Finding) -> NoReturn:
    raise UsageError(findings=findings)


def _read(path: FilePath, name: str) -> str:
    try:
        if name == "<stdin>":
            data = sys.stdin.buffer.read(_LARGEST_FILE + 1)
        else:
            with path.open("rb") as file:
                data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        shipped = path.name in {file.stem for file in resources.folder("recipes").glob("*.yaml")}
        remedy = (
            f"`s2s recipes cp {path.name}` makes it"
            if shipped
            else "check the path; `s2s recipes ls` lists ours"
        )
        raise UsageError(f"cannot read the recipe: {error.strerror}", where=name, remedy=remedy) from None
    if len(data) > _LARGEST_FILE:
        raise UsageError("larger than 256 KiB: not a recipe", where=name, remedy="is it the right file?")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        where = f"{name}:{line}:{column}"
        raise UsageError("not UTF-8 text", where=where, remedy="save the recipe as UTF-8") from None


def _override(document: Document, override: str) -> None:
    """Put the value of ``section.key=value`` into the document, as if it had been written there."""
    key, equals, text = override.partition("=")
    shown = Place(f"--set {override}")
    path: Path = tuple(key.split("."))
    if not equals or "" in path:
        remedy = "write --set section.key=value, as training.learning_rate=1e-4"
        _report(document, shown, "not section.key=value", remedy)
        return
    try:
        value = yaml12.parse(text, shown.name, positions=False)
    except UsageError as error:
        document.problems += [(shown, finding) for finding in error.findings]
        return
    document.problems += value.problems
    node = document.value
    for depth, part in enumerate(path[:-1], start=1):
        if path[:depth] in (("model", "encoder"), ("model", "decoder")) and isinstance(node.get(part), str):
            node[part] = {"checkpoint": node[part]}
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            _report(document, shown, f"{'.'.join(map(str, path[:depth]))} has no keys", "set it as a whole")
            return
    for places in (document.keys, document.values):
        for old in [place for place in places if place[: len(path)] == path]:
            del places[old]
    for depth in range(1, len(path) + 1):
        document.keys.setdefault(path[:depth], shown)
        document.values.setdefault(path[:depth], shown)
    document.broken = {broken for broken in document.broken if broken[: len(path)] != path}
    document.keys.update({(*path, *below): place for below, place in value.keys.items()})
    document.values.update({(*path, *below): place for below, place in value.values.items()})
    document.broken |= {(*path, *below) for below in value.broken}
    node.pop(path[-1], None)
    if () not in value.broken:
        node[path[-1]] = value.value


def _report(document: Document, place: Place, what: str, remedy: str) -> None:
    document.problems.append((place, Finding(what, str(place), remedy)))


def _presets(
    raw: dict[str, Any], document: Document
) -> tuple[dict[Path, dict[str, Any]], list[tuple[Place, Finding]]]:
    """The options of the presets that generation sections name, by the section's path."""
    sections: dict[Path, Any] = {_GENERATION: raw.get("generation")}
    turns = raw.get("turns")
    for number, turn in enumerate(turns if isinstance(turns, list) else []):
        sections["turns", number, "generation"] = turn.get("generation") if isinstance(turn, dict) else None
    found: dict[Path, dict[str, Any]] = {}
    problems: list[tuple[Place, Finding]] = []
    for path, section in sections.items():
        name = section.get("preset") if isinstance(section, dict) else None
        if isinstance(name, str):
            place = document.place((*path, "preset"))
            try:
                found[path] = load_preset(name, where=str(place))
            except UsageError as error:
                problems += [(place, finding) for finding in error.findings]
    return found, problems


def _findings(problems: Sequence[Problem], document: Document) -> Iterator[tuple[Place, Finding]]:
    for problem in problems:
        at_key = problem.what.startswith("unknown key")
        place = document.place(problem.paths[0], key=at_key)
        yield place, Finding(problem.what, str(place), problem.remedy)


def _resolve(checked: RecipeFile, preset: dict[str, Any], name: str, document: Document) -> Recipe:
    """Fill in what depends on other values."""
    training = checked.training
    if training.load_best_model_at_end is None:
        best = checked.data.validation is not None
        training = training.model_copy(update={"load_best_model_at_end": best})
    if training.greater_is_better is None:
        greater = training.metric_for_best_model not in SMALLER_IS_BETTER
        training = training.model_copy(update={"greater_is_better": greater})
    options = merge_generation(preset, checked.generation.model_dump(exclude_none=True))
    place = document.place(("generation",))
    generation = generation_section(
        options, where=lambda key: str(document.values.get(("generation", key), place))
    )
    return Recipe(
        model=checked.model,
        data=checked.data,
        training=training,
        generation=generation,
        output=checked.output,
        file=name,
        document=document,
    )
