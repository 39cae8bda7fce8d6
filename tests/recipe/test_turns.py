"""Recipes of turns: what they hold, and what is wrong with them, with its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from seq2seq_cli.errors import UsageError
from seq2seq_cli.recipe import Turns, load, load_recipe

Write = Callable[[str], Path]


def test_options_of_a_turn_win_over_those_of_all(write: Write) -> None:
    recipe = load(
        write(
            "turns: [a, {model: ./b, generation: {top_p: 0.5, seed: 3}}, {model: a, generation: "
            "{preset: greedy}}]\nrounds: 2\ngeneration: {top_p: 0.9, max_new_tokens: 7}\n"
        )
    )
    assert isinstance(recipe, Turns)
    assert recipe.rounds == 2
    assert [(turn.model, turn.where) for turn in recipe.turns] == [
        ("a", "r.yaml:1:9"),
        ("./b", "r.yaml:1:20"),
        ("a", "r.yaml:1:69"),
    ]
    first, second, third = (turn.generation for turn in recipe.turns)
    assert first == {"top_p": 0.9, "max_new_tokens": 7, "do_sample": True}
    assert second == {"top_p": 0.5, "max_new_tokens": 7, "do_sample": True, "seed": 3}
    assert third["do_sample"] is False
    assert "top_p" not in third, "the preset turns sampling off"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("turns: []", ["turns must not be empty · r.yaml:1:8"]),
        ("turns: 3", ["turns must be a list, not 3 · r.yaml:1:8"]),
        ("turns: [a, 3]", ["turns.1 must be a checkpoint reference, or a mapping with model:, not 3"]),
        ("turns: [{modle: a}]", ["unknown key 'turns.0.modle' · r.yaml:1:10 · did you mean 'model'?"]),
        (
            "turns: [{model: a, generation: {topp: 1}}]",
            ["unknown key 'turns.0.generation.topp' · r.yaml:1:33 · did you mean 'top_p'?"],
        ),
        ("turns: [a]\nround: 2", ["unknown key 'round' · r.yaml:2:1 · did you mean 'rounds'?"]),
        ("turns: [a]\nmodel: {encoder: a}", ["unknown key 'model' · r.yaml:2:1"]),
        (
            "turns: [{model: a, generation: {min_new_tokens: 3, max_new_tokens: 2}}]\nrounds: 0",
            ["min_new_tokens 3 is more than max_new_tokens 2 · r.yaml:1:49", "rounds must be at least 1"],
        ),
        (
            "turns: [{model: a, generation: {min_new_tokens: 3}}]\ngeneration: {max_new_tokens: 2}",
            ["min_new_tokens 3 is more than max_new_tokens 2 · r.yaml:1:17"],
        ),
        (
            "turns: [{model: a, generation: {do_sample: true, num_return_sequences: 2}}]",
            ["a turn writes one text · r.yaml:1:72"],
        ),
        ("turns: [{model: a, generation: {preset: gredy}}]", ["no preset named 'gredy' · r.yaml:1:41"]),
    ],
)
def test_mistakes_have_their_place(write: Write, text: str, says: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        load(write(text))
    found = list(map(str, caught.value.findings))
    assert len(found) == len(says), found
    for finding, start in zip(found, says, strict=True):
        assert finding.startswith(start)


def test_it_is_no_recipe_to_train(write: Write) -> None:
    with pytest.raises(UsageError, match=r"turns has no model of its own · r.yaml:1:9"):
        load_recipe(write("turns: [a]"))
