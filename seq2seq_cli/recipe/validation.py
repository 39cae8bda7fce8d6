"""From pydantic's errors to findings that name what, where and what to do."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from seq2seq_cli.errors import nearest
from seq2seq_cli.recipe.problems import Problem
from seq2seq_cli.recipe.sections import RecipeFile
from seq2seq_cli.recipe.yaml12 import Path

M = TypeVar("M", bound=BaseModel)

_TYPES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "finite_number": "a finite number",
}
#: Findings about single values; who reads more than this at once?
_MOST = 100
_LIMITS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}


def validate(
    model: type[M],
    raw: dict[str, Any],
    checks: Callable[[M], Iterable[Problem]],
    *,
    broken: Collection[Path] = (),
) -> tuple[M | None, list[Problem]]:
    """Check ``raw`` against ``model`` and then against the rules between values, as far as both can be done.

    ``broken`` are paths already reported and left out of ``raw``; nothing more is said about them.
    Returns the model (None when it cannot be made) and all problems.
    """
    bad = set(broken)
    problems = []
    try:
        value: M | None = model.model_validate(raw)
    except ValidationError as error:
        problems = [_explain(detail, model, raw) for detail in error.errors(include_url=False)[:_MOST]]
        problems = [problem for problem in problems if not _touches(problem, bad)]
        meant = {path for problem in problems for path in problem.paths[1:]}
        problems = [problem for problem in problems if problem.paths[0] not in meant]
        bad |= meant | {problem.paths[0] for problem in problems}
        value = _rest(model, raw, bad)
    if value is not None:
        problems += [problem for problem in checks(value) if not _touches(problem, bad)]
    return (None if problems else value), problems


def _touches(problem: Problem, bad: Iterable[Path]) -> bool:
    """True when a value that the problem is about lies at, below or above one that is known to be wrong."""
    return any(
        path[: len(other)] == other or (len(path) > 0 and other[: len(path)] == path)
        for path in problem.paths
        for other in bad
    )


def _rest(model: type[M], raw: dict[str, Any], bad: Iterable[Path]) -> M | None:
    """The model made from the values that are not wrong, so that the rules between those can be checked."""
    left = copy.deepcopy(raw)
    for path in bad:
        node: Any = left
        for key in path[:2][:-1]:
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.pop(path[:2][-1], None)
    try:
        return model.model_validate(left)
    except ValidationError:
        return None


def _explain(detail: Any, model: type[BaseModel], raw: Any) -> Problem:
    """One pydantic error in our words."""
    kind, context, given = detail["type"], detail.get("ctx", {}), detail["input"]
    path = _real_path(detail["loc"], raw)
    name = ".".join(str(part) for part in path)
    if kind == "missing":
        missing = str(detail["loc"][-1])
        return Problem(f"missing key {'.'.join([*map(str, path), missing])!r}", "add it", ((*path, missing),))
    if kind == "extra_forbidden":
        remedy = _nearest_key(str(path[-1]), path[:-1], model)
        # what was meant is neither missing nor unset, so nothing more is said about it
        meant = [(*path[:-1], close) for close in re.findall("did you mean '(.*)'", remedy)]
        meant = [each for each in meant if _real_path(each, raw) != each]  # unless it was written as well
        return Problem(f"unknown key {name!r}", remedy, (path, *meant))
    if kind == "literal_error":
        options = re.findall(r"'([^']*)'", context["expected"])
        what = f"{name} must be one of {', '.join(options)}, not {_show(given)}"
        close = nearest(given, options) if isinstance(given, str) else ""
        return Problem(what, "" if close.startswith("known") else close, (path,))
    if kind in _LIMITS:
        word, key = _LIMITS[kind]
        limit = int(context[key]) if context[key] == int(context[key]) else context[key]
        what = f"{name} must be {word} {limit}, not {_show(given)}"
        return Problem(what, "change it, or leave it out", (path,))
    if kind == "expected":
        return Problem(f"{name} must be {context['what']}, not {_show(given)}", "", (path,))
    if kind in ("too_short", "string_too_short"):
        return Problem(f"{name} must not be empty", "write a value, or leave it out", (path,))
    if kind in _TYPES:
        return Problem(
            f"{name} must be {_TYPES[kind]}, not {_show(given)}", _conversion(kind, given), (path,)
        )
    return Problem(f"{name}: {detail['msg']}", "", (path,))


def _show(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) > 10**30:
        return "a number that long"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _conversion(kind: str, given: Any) -> str:
    """What was probably meant."""
    if kind == "int_type" and isinstance(given, float) and given.is_integer() and abs(given) < 10**15:
        return f"write {int(given)}"
    if kind in ("int_type", "float_type") and isinstance(given, str):
        return "write it without quotes" if re.fullmatch(r"[-+.0-9eE]+", given) else "write a number"
    if kind == "string_type" and isinstance(given, (int, float)):
        return "put it in quotes"
    if kind == "bool_type" and given in ("yes", "no", "on", "off"):
        return f"write {'true' if given in ('yes', 'on') else 'false'}"
    if given is None:
        return "write a value, or remove the key"
    return ""


def _real_path(loc: Iterable[str | int], raw: Any) -> Path:
    """The part of pydantic's location that exists in the document (it also names members of unions)."""
    path: list[str | int] = []
    for part in loc:
        if isinstance(raw, list):
            known = isinstance(part, int) and part < len(raw)
        else:
            known = isinstance(raw, Mapping) and part in raw
        if not known:
            continue
        raw = raw[part]
        path.append(part)
    return tuple(path)


#: what other programs for training call a key of ours that no spelling leads to
_OTHER_NAMES = {
    "batch_size": "per_device_train_batch_size",
    "bf16": "mixed_precision",
    "epochs": "num_train_epochs",
    "eval_strategy": "eval_steps",
    "evaluation_strategy": "eval_steps",
    "fp16": "mixed_precision",
    "lr": "learning_rate",
    "patience": "early_stopping_patience",
    "save_strategy": "save_steps",
}
_LAUNCHER = "tell Accelerate's launch file, as those in configs/accelerate do"
#: keys of theirs for what is said otherwise here
_SAID_ELSEWHERE = {
    "adam_betas": "write adam_beta1 and adam_beta2",
    "deepspeed": _LAUNCHER,
    "fsdp": _LAUNCHER,
    "generation_max_length": "write max_new_tokens in the section generation:",
    "generation_num_beams": "write num_beams in the section generation:",
    "group_by_length": "remove it: batches by tokens_per_batch, the default, have rows of like length",
    "output_dir": "write output: at the top of the recipe",
    "overwrite_output_dir": "call s2s finetune with --overwrite",
    "resume_from_checkpoint": "call s2s finetune with --resume",
}


def _nearest_key(key: str, above: Path, model: type[BaseModel]) -> str:
    known = _keys_at(above, model)
    if key in _SAID_ELSEWHERE:
        return _SAID_ELSEWHERE[key]
    if _OTHER_NAMES.get(key) in known:
        return f"did you mean {_OTHER_NAMES[key]!r}?"
    remedy = nearest(key, known)
    if remedy.startswith("known") and model is RecipeFile:
        for section, field in RecipeFile.model_fields.items():
            if any(key in inner.model_fields for inner in _models(field.annotation)):
                return f"it belongs to the section {section}:"
    return remedy


def _keys_at(path: Path, model: type[BaseModel]) -> list[str]:
    """The keys that a section accepts."""
    models = [model]
    for part in filter(lambda part: isinstance(part, str), path):  # a list's keys are those of its members
        fields = [each.model_fields[part] for each in models if part in each.model_fields]
        models = [inner for field in fields for inner in _models(field.annotation)]
    return [name for each in models for name in each.model_fields]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections named in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
