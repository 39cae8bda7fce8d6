"""What the rules between the values of a recipe say of one that breaks them."""

from __future__ import annotations

from dataclasses import dataclass

from seq2seq_cli.recipe.fields import Section
from seq2seq_cli.recipe.yaml12 import Path


@dataclass(frozen=True)
class Problem:
    """What is wrong with the values at ``paths`` (the first is where it is shown), and what to do."""

    what: str
    remedy: str
    paths: tuple[Path, ...]


def problem(what: str, remedy: str, *keys: str) -> Problem:
    """A problem at ``keys``, as ``training.seed``."""
    return Problem(what, remedy, tuple(tuple(key.split(".")) for key in keys))


def changed(section: Section) -> set[str]:
    """The keys whose values differ from the defaults."""
    return set(section.model_dump(exclude_defaults=True))
