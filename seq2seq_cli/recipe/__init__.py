"""Recipes: YAML files that describe one run, checked key by key, with a place for every finding."""

from __future__ import annotations

from seq2seq_cli.recipe.checks import merge_generation
from seq2seq_cli.recipe.generation import GenerationSection
from seq2seq_cli.recipe.load import (
    Recipe,
    generation_section,
    json_schema,
    load,
    load_preset,
    load_recipe,
    require,
    where_of,
)
from seq2seq_cli.recipe.problems import changed
from seq2seq_cli.recipe.sections import (
    PAIRED,
    DataSection,
    GroupSection,
    GroupsSection,
    ModelSection,
    SideSection,
    SourceTarget,
    TokenizersSection,
    TrainingSection,
    TrainTokenizer,
)
from seq2seq_cli.recipe.turns import Turns

__all__ = [
    "PAIRED",
    "DataSection",
    "GenerationSection",
    "GroupSection",
    "GroupsSection",
    "ModelSection",
    "Recipe",
    "SideSection",
    "SourceTarget",
    "TokenizersSection",
    "TrainTokenizer",
    "TrainingSection",
    "Turns",
    "changed",
    "generation_section",
    "json_schema",
    "load",
    "load_preset",
    "load_recipe",
    "merge_generation",
    "require",
    "where_of",
]
