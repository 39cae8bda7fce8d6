"""Rules of recipes that read their training rows as a stream."""

from __future__ import annotations

from collections.abc import Iterator

from seq2seq_cli.recipe.problems import Problem, changed, problem
from seq2seq_cli.recipe.sections import RecipeFile


def streaming_problems(recipe: RecipeFile) -> Iterator[Problem]:
    """What a stream, whose end nobody knows, does not go with."""
    if not recipe.data.streaming:
        if "buffer_size" in changed(recipe.data):
            keys = ("data.buffer_size", "data.streaming")
            yield problem("buffer_size belongs to streaming", "write streaming: true, or remove it", *keys)
        return
    if recipe.training.max_steps is None:
        keys = ("training.max_steps", "data.streaming")
        yield problem("a stream has no number of epochs", "write training: {max_steps: N}", *keys)
    if recipe.training.auto_find_batch_size:
        keys = ("training.auto_find_batch_size", "data.streaming")
        yield problem("auto_find_batch_size has to see all rows", "state the batch size", *keys)
