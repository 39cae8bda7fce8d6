"""The kinds of values that recipe sections are made of, each with its limits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

_LARGEST = 2**31 - 1


class Section(BaseModel):
    """Settings of every section: values are never converted, unknown keys and NaN are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        defer_build=True,  # a command builds the sections that it reads, not all of them at its start
    )


def expected(what: str) -> PydanticCustomError:
    """The error of a value that is of no accepted kind; ``what`` completes "must be ..."."""
    return PydanticCustomError("expected", "{what}", {"what": what})


def _filled(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise expected("some text, not an empty one")
    return value


def _path(value: Any) -> Any:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise expected("a path")
    return Path(value)


def _warmup(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise expected("a number of steps, or a share of all steps below 1")
    if value < 0 or (value >= 1 and value != int(value)):
        raise expected("a whole number of steps, or a share of all steps from 0 up to 1")
    return float(value) if 0 < value < 1 else int(value)


def _early_stopping(value: Any) -> Any:
    if value not in (True, False, "never") or (
        isinstance(value, (int, float)) and not isinstance(value, bool)
    ):
        raise expected("true, false or never")
    return value


def listed(value: Any) -> Any:
    """One value is short for a list of it."""
    return [value] if isinstance(value, (int, str)) and not isinstance(value, bool) else value


def several_names(value: Any) -> Any:
    """One name is short for a list of it, ``none`` for no name; each once."""
    if isinstance(value, str):
        value = [] if value == "none" else [value]
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return list(dict.fromkeys(value))
    return value


def as_pair(value: Any) -> Any:
    """YAML and JSON know lists only."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise expected("a number of tokens and a factor, as [20, 1.05]")
    return tuple(value)


def _bias(value: Any) -> Any:
    """Texts and their biases, or transformers' forms: pairs of ids and bias, or a mapping from ids."""
    if isinstance(value, dict) and value and all(isinstance(key, tuple) for key in value):
        return [(list(key), bias) for key, bias in value.items()]
    if isinstance(value, list) and value and all(isinstance(e, (list, tuple)) and len(e) == 2 for e in value):
        return [tuple(each) for each in value]
    if not isinstance(value, dict) or not value:
        raise expected("texts with a number each, as {tea: 2.5}")
    return value


def _alternatives(value: Any) -> Any:
    """A phrase alone is short for a list of it; alternatives may stand in one text, split by |."""
    if not isinstance(value, (str, list)):
        raise expected("a phrase, or a list of phrases of which one is enough")
    return value.split("|") if isinstance(value, str) else value


def side(value: Any) -> Any:
    """A bare reference is short for a side with that checkpoint."""
    if isinstance(value, str):
        return {"checkpoint": value}
    if not isinstance(value, (dict, BaseModel)):
        raise expected("a checkpoint reference or a mapping with checkpoint: or family:")
    return value


def _tokenizer(value: Any) -> Any:
    if not isinstance(value, (str, dict, BaseModel)):
        raise expected("a checkpoint reference or {train: bpe|wordpiece|unigram, vocab_size: N}")
    return value


def _source(value: Any) -> Any:
    if not isinstance(value, (str, list, dict, BaseModel)) or value in ("", []):
        raise expected("a file or data set, a list of them, or {source: FILE, target: FILE}")
    return value


def kind_of(value: Any) -> str:
    """Which member of a union a value is meant for, so that only that one's errors are reported."""
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list) else "mapping"


Text = Annotated[str, BeforeValidator(_filled)]
Alternatives = Annotated[
    list[Text], Field(min_length=1), BeforeValidator(_alternatives, json_schema_input_type=str | list[str])
]
FilePath = Annotated[Path, BeforeValidator(_path), Field(strict=False)]
Count = Annotated[int, Field(ge=1, le=_LARGEST)]
CountOrZero = Annotated[int, Field(ge=0, le=_LARGEST)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Positive = Annotated[float, Field(gt=0)]
PositiveOrZero = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Id = Annotated[int, Field(ge=0, le=_LARGEST)]
Ids = Annotated[list[Id], BeforeValidator(listed)]
#: text that may be white space, as a line break that ends an output
Written = Annotated[str, Field(min_length=1)]
Texts = Annotated[list[Written], BeforeValidator(listed)]
Words = Annotated[list[Id], Field(min_length=1)]
Bias = Annotated[
    Annotated[dict[Written, float], Tag("mapping")] | Annotated[list[tuple[Words, float]], Tag("list")],
    Discriminator(kind_of),
    BeforeValidator(_bias),
]
Warmup = Annotated[int | float, BeforeValidator(_warmup)]
EarlyStopping = Annotated[bool | Literal["never"], BeforeValidator(_early_stopping)]
TokenizerLike = BeforeValidator(_tokenizer)
SourceLike = BeforeValidator(_source)
