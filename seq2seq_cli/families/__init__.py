"""The families that s2s knows, by the ``model_type`` of their config.json."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from seq2seq_cli.errors import CheckpointError, UsageError, nearest
from seq2seq_cli.families.family import Family, Role

#: one file each; a new family is its file and its line here
_FILES = (
    "albert",
    "bart",
    "bert",
    "camembert",
    "ctrl",
    "distilbert",
    "electra",
    "gpt2",
    "mt5",
    "openai_gpt",
    "roberta",
    "roberta_prelayernorm",
    "t5",
    "transfo_xl",
    "xlm",
    "xlm_roberta",
    "xlnet",
)


def _family(file: str) -> Family:
    family: Family = import_module(f"{__name__}.{file}").FAMILY
    return family


FAMILIES: dict[str, Family] = {family.name: family for family in map(_family, _FILES)}


def family_of(config: Mapping[str, Any], *, where: str = "") -> Family:
    """The family of a config.json; CheckpointError for one that we do not have."""
    name = config.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        what = f"model_type {name!r} is not supported" if name else "config.json has no model_type"
        raise CheckpointError(what, where=where, remedy=nearest(str(name), FAMILIES))
    return FAMILIES[name]


def family_named(name: str, *, where: str = "") -> Family:
    """The family that a person named; UsageError for one that we do not have."""
    if name not in FAMILIES:
        raise UsageError(f"unknown family {name!r}", where=where, remedy=nearest(name, FAMILIES))
    return FAMILIES[name]


__all__ = ["FAMILIES", "Family", "Role", "family_named", "family_of"]
