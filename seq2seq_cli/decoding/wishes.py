"""What a checkpoint wishes for and cannot have: its generation settings are as foreign as its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from seq2seq_cli.errors import CheckpointError, Finding, UsageError
from seq2seq_cli.recipe.problems import Problem

#: each takes a cache of its own, and a search over more was never of use
MOST_WAYS = 1000
#: a length of 2^31 tokens to this power is still a number
_LARGEST_EXPONENT = 30.0
#: scores times or divided by these stay numbers in float32
_FACTORS = (1e-6, 1e6)


def extremes(options: Any, given: Mapping[str, Any]) -> Iterator[Problem]:
    """Values that no machine or number format bears; ``given``: options that somebody asks for, who may want
    as many samples as there is time for."""
    ways = ["num_beams"] + ["num_return_sequences"] * (given.get("num_return_sequences") is None)
    ranges = {
        **dict.fromkeys(ways, (1, MOST_WAYS)),
        "length_penalty": (-_LARGEST_EXPONENT, _LARGEST_EXPONENT),
        **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty", "temperature"), _FACTORS),
        "diversity_penalty": (-_FACTORS[1], _FACTORS[1]),
    }
    for name, (least, most) in ranges.items():
        value = getattr(options, name, None)
        if value is not None and not least <= value <= most:
            what = f"{name} must be from {least:g} to {most:g}, not {value}"
            yield Problem(what, "change it, or leave it out", ((name,),))


def unknown_file(key: str) -> str:
    """What to call the file that ``key`` is from, where only the model is at hand."""
    return "the checkpoint's generation_config.json"


def refuse(
    problems: list[Problem],
    *,
    given: Mapping[str, Any],
    wished: Mapping[str, Any],
    file_of: Callable[[str], str],
) -> NoReturn:
    """UsageError for the problems that somebody asked for; CheckpointError, with the file, where there are
    only those of a checkpoint. ``file_of`` gives the file of a key, "" where it is no checkpoint's."""
    asked, foreign = [], []
    for problem in problems:
        keys = [str(path[0]) for path in problem.paths]
        files = [file_of(key) for key in keys if key in wished and given.get(key) is None]
        if len(files) == len(keys) and all(files):
            foreign.append(Finding(problem.what, files[0], problem.remedy))
        else:
            asked.append(Finding(problem.what, remedy=problem.remedy))
    if asked:
        raise UsageError(findings=asked)
    raise CheckpointError(findings=foreign)
