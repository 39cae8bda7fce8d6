"""Recipes of another kind: models that take turns, each going on with what the last one wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from seq2seq_cli.errors import Finding, UsageError
from seq2seq_cli.recipe.checks import generation_problems, merge_generation
from seq2seq_cli.recipe.fields import Count, Section, Text, expected
from seq2seq_cli.recipe.generation import GenerationSection
from seq2seq_cli.recipe.problems import Problem
from seq2seq_cli.recipe.validation import validate
from seq2seq_cli.recipe.yaml12 import Document, Path

#: where the options of all turns stand
_OF_ALL: Path = ("generation",)


def _turn(value: Any) -> Any:
    """A bare reference is short for a turn of that model."""
    if isinstance(value, str):
        return {"model": value}
    if not isinstance(value, (dict, BaseModel)):
        raise expected("a checkpoint reference, or a mapping with model:")
    return value


class TurnSection(Section):
    """One model's turn, and how it writes."""

    model: Text = Field(description="checkpoint reference: folder, hub id, alias, pkg:...")
    generation: GenerationSection = Field(
        default=GenerationSection(), description="options of this turn; they win over those of all"
    )


class TurnsFile(Section):
    """Models that take turns: each goes on with the text that the one before it left (`s2s generate`)."""

    turns: Annotated[
        list[Annotated[TurnSection, BeforeValidator(_turn, json_schema_input_type=str | TurnSection)]],
        Field(min_length=1),
    ] = Field(description="the models, in their order; one may come more than once")
    rounds: Count = Field(default=1, description="how often all of them have their turn")
    generation: GenerationSection = Field(default=GenerationSection(), description="options of every turn")


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A model's reference, where the recipe names it, and its options, presets merged in."""

    model: str
    where: str
    generation: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Turns:
    """A checked recipe of turns."""

    turns: tuple[Turn, ...]
    rounds: int


def turns_problems(recipe: TurnsFile) -> Iterator[Problem]:
    """What the options of the turns get wrong together."""
    for at, section in _sections(recipe):
        for problem in generation_problems(section):
            yield Problem(problem.what, problem.remedy, tuple((*at, *path) for path in problem.paths))
        if (section.num_return_sequences or 1) > 1:
            yield Problem("a turn writes one text", "remove it", ((*at, "num_return_sequences"),))


def _sections(recipe: TurnsFile) -> Iterator[tuple[Path, GenerationSection]]:
    """The generation sections with their paths: that of all turns, then those of each."""
    yield _OF_ALL, recipe.generation
    for number, turn in enumerate(recipe.turns):
        yield ("turns", number, "generation"), turn.generation


def resolve_turns(recipe: TurnsFile, presets: Mapping[Path, dict[str, Any]], document: Document) -> Turns:
    """The turns with their options: presets (by the path of their section), those of all turns, their own.
    UsageError where these contradict each other."""
    layers = {
        path: (presets.get(path, {}), section.model_dump(exclude_none=True, exclude={"preset"}))
        for path, section in _sections(recipe)
    }
    turns, findings = [], []
    for number, turn in enumerate(recipe.turns):
        options = merge_generation(*layers[_OF_ALL], *layers["turns", number, "generation"])
        where = str(document.place(("turns", number, "model")))
        _, problems = validate(GenerationSection, options, generation_problems)
        findings += [Finding(problem.what, where, problem.remedy) for problem in problems]
        turns.append(Turn(model=turn.model, where=where, generation=options))
    if findings:
        raise UsageError(findings=findings)
    return Turns(turns=tuple(turns), rounds=recipe.rounds)
