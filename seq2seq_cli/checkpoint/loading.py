"""From a published folder to a stack: translate the config, rename the weights, check, fill in the rest."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from seq2seq_cli.checkpoint.report import LoadReport
from seq2seq_cli.checkpoint.strict_json import shown
from seq2seq_cli.checkpoint.weights import Weights
from seq2seq_cli.errors import CheckpointError, Finding, ResourceError
from seq2seq_cli.families import Family, Role
from seq2seq_cli.families.family import MOST_LAYERS
from seq2seq_cli.families.translate import Translated, to_ours
from seq2seq_cli.model import Stack, StackConfig
from seq2seq_cli.model.initialise import initialise

_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")
#: how many names an error lists before it counts the rest
_NAMED = 5
#: options that may be 0, or absent, or a list or name: who uses them looks at them
_IDS = ("_token_id", "language", "lang_id", "_len", "attn_type", "sample_softmax")


def full_config(family: Family, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the published defaults where it is silent (4.x files leave defaults out)."""
    return {**family.options, **config}


def stack_config(family: Family, config: Mapping[str, Any], role: Role, *, where: str) -> StackConfig:
    """Translate a config.json, checking that every size is a positive whole number."""
    full = full_config(family, config)
    wrong = [
        Finding(f"{key}={shown(full[key])} is not a sensible value", where, f"the default is {default!r}")
        for key, default in family.options.items()
        if not key.endswith(_IDS) and not _sensible(full[key], default)
    ]
    if wrong:
        raise CheckpointError(findings=wrong)
    with placed(where):
        translated = family.stack_config(full, role)
        if translated.num_layers > MOST_LAYERS:
            raise CheckpointError(f"{translated.num_layers} layers are more than the {MOST_LAYERS} we build")
        return translated


@contextmanager
def placed(where: str) -> Iterator[None]:
    """Say where in the errors of code that does not know it."""
    try:
        yield
    except CheckpointError as error:
        findings = [Finding(f.what, f.where or where, f.remedy) for f in error.findings]
        raise CheckpointError(findings=findings) from None


def _sensible(value: Any, default: Any) -> bool:
    """Is ``value`` of the kind that ``default`` shows (sizes positive, probabilities below 1, factors)?

    A default of None stands for a size that follows from another one.
    """
    if isinstance(default, bool):
        return isinstance(value, bool)
    if default is None and value is None:
        return True
    if default is None or isinstance(default, int):
        return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31
    if isinstance(default, float):
        most = 1 if default < 1 else 2**31
        return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < most
    return isinstance(value, type(default))


def build_stack(
    family: Family,
    config: StackConfig,
    weights: Mapping[str, Tensor] | None,
    *,
    published: Mapping[str, Any],
    where: str,
    may_be_fresh: Callable[[str], bool] = lambda name: False,
    layers: int | None = None,
    generator: torch.Generator | None = None,
) -> tuple[Stack, LoadReport]:
    """A stack with the file's weights under our parameter names.

    weights: published names (without the part's prefix); None = everything fresh. published: the
    config.json that ``config`` was translated from. A parameter that the
    file lacks is fresh when ``may_be_fresh`` says so, else an error, as are unknown names, layers beyond
    those of ``config`` (or beyond ``layers``, where fewer are built on purpose), other shapes and values
    that are not finite.
    """
    stack = _outline(config, where)
    if weights is None:
        _check_memory(stack, where)
        fill(stack, {}, generator=generator)
        fresh = {name: parameter.numel() for name, parameter in stack.named_parameters()}
        return stack.eval(), LoadReport(fresh=fresh)
    wanted = dict(stack.named_parameters())
    stored = weights if isinstance(weights, Weights) else Weights(weights)

    def translate(some: Mapping[str, Tensor]) -> Translated:
        with placed(where):
            return to_ours(family, some, tied=config.ties_head, config=published)

    outlines = {name: stored.outline(name) for name in stored}
    try:
        translated = translate(outlines)
    except RuntimeError as error:  # a damaged tensor cannot be taken apart as the published one
        raise CheckpointError(f"unpublished shapes: {error}", where=where) from error
    found = {name: tensor for name, tensor in translated.weights.items() if name in wanted}
    theirs = {id(tensor): name for name, tensor in outlines.items()}
    beyond = [
        theirs.get(id(translated.weights[name]), name) for name in _beyond(translated.weights, stack, layers)
    ]
    check_tensors(wanted, found, [*translated.unknown, *beyond], where=where, may_be_fresh=may_be_fresh)
    _check_memory(stack, where)
    numbers = _numbers(stored, outlines, found, translate)
    _check_finite(numbers, where=where)
    fill(stack, numbers, generator=generator)
    unused = {**translated.ignored, **{n: t for n, t in translated.weights.items() if n not in wanted}}
    report = LoadReport(
        loaded={name: tensor.numel() for name, tensor in found.items()},
        fresh={name: wanted[name].numel() for name in wanted if name not in found},
        unused={name: tensor.numel() for name, tensor in unused.items()},
    )
    return stack.eval(), report


def stored_layers(config: StackConfig) -> int:
    """How many layers a file of this stack has; one may stand at several depths."""
    return max(config.layer_order or (config.num_layers - 1,)) + 1


def _beyond(found: Iterable[str], stack: Stack, layers: int | None) -> list[str]:
    """Names of what the stack would have if it had more layers, or its vocabulary more clusters."""
    has = {name for name, _ in stack.named_parameters(remove_duplicate=False)}
    left_out = {str(number) for number in range(layers or 0)}
    numbers = {name: match[0] for name in found if name not in has and (match := _LAYER.search(name))}
    return [
        name
        for name, number in numbers.items()
        if number not in left_out and _LAYER.sub("0", name, count=1) in has
    ]


def _outline(config: StackConfig, where: str) -> Stack:
    """The stack on the meta device."""
    try:
        with torch.device("meta"):
            return Stack(config)
    except (RuntimeError, OverflowError) as error:
        raise CheckpointError(f"sizes beyond any machine: {error}", where=where) from error


def _check_memory(stack: Stack, where: str) -> None:
    """Refuse a stack whose parameters this machine could never hold."""
    needed = 4 * sum(parameter.numel() for parameter in stack.parameters())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise CheckpointError(
            f"the sizes make {needed:,} bytes of parameters, and this machine has {memory:,}", where=where
        )


def _numbers(
    stored: Weights,
    outlines: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    translate: Callable[[Mapping[str, Tensor]], Translated],
) -> dict[str, Tensor]:
    """The tensors whose outlines are ``found``: from the mapped file those that only have another name or
    another order of axes with us, the others (taken apart) made anew from what is read for them."""
    theirs = {id(tensor): name for name, tensor in outlines.items()}
    renamed = {name: theirs[id(tensor)] for name, tensor in found.items() if id(tensor) in theirs}
    turned = {
        theirs[id(whole)]
        for tensor in found.values()
        if id(whole := tensor._base) in theirs and whole is not None and whole.numel() == tensor.numel()
    }
    numbers: dict[str, Tensor] = {}
    if len(renamed) < len(found):
        made = translate(stored.glimpses(but=set(renamed.values()), keep=turned)).weights
        numbers = {name: made[name] for name in found if name not in renamed}
    return numbers | {name: stored.borrow(published).float() for name, published in renamed.items()}


def check_tensors(
    wanted: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    unknown: Collection[str],
    *,
    where: str,
    may_be_fresh: Callable[[str], bool] = lambda name: False,
) -> None:
    """Refuse parameters that are missing, unknown, of another shape or no fractions, each kind by name.

    Tensors on the meta device do, so that a file is compared with its config.json before it is read; of
    others those that hold NaN or infinity are refused, too.
    """
    findings = []
    missing = [name for name in wanted if name not in found and not may_be_fresh(name)]
    if missing:
        remedy = "the file holds fewer layers or other sizes than asked for; fresh weights: --random-decoder"
        if {name for name in wanted if name.startswith("head.")} == set(missing):
            remedy = "a bare encoder writes no text: join it to a decoder with s2s combine"
        findings.append(Finding(f"{len(missing)} parameters are missing: {_listed(missing)}", where, remedy))
    if unknown:
        findings.append(
            Finding(
                f"{len(unknown)} unexpected parameters: {_listed(list(unknown))}",
                where,
                "is model_type in config.json right?",
            )
        )
    shapes = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
        for name, tensor in found.items()
        if tensor.shape != wanted[name].shape
    ]
    if shapes:
        findings.append(
            Finding(
                f"{len(shapes)} parameters have another shape than config.json says: {_listed(shapes)}", where
            )
        )
    kinds = [f"{name} {tensor.dtype}" for name, tensor in found.items() if not tensor.is_floating_point()]
    if kinds:
        findings.append(Finding(f"{len(kinds)} parameters are not floating point: {_listed(kinds)}", where))
    if findings:
        raise CheckpointError(findings=findings)
    _check_finite({name: tensor for name, tensor in found.items() if not tensor.is_meta}, where=where)


def _check_finite(found: Mapping[str, Tensor], *, where: str) -> None:
    """Refuse parameters that hold NaN or infinity, by name."""
    broken = [name for name, tensor in found.items() if not _is_finite(tensor.float())]
    if broken:
        raise CheckpointError(
            f"{len(broken)} parameters hold NaN or infinity: {_listed(broken)}", where=where
        )


def _is_finite(tensor: Tensor) -> bool:
    """True for float32 without NaN or infinity. A sum tells mostly; einsum's is the fastest of one thread,
    and more threads would only queue for the pages of the mapped file."""
    values = tensor.detach().numpy().ravel(order="K")
    with numpy.errstate(all="ignore"):
        return bool(numpy.isfinite(numpy.einsum("i->", values))) or bool(numpy.isfinite(values).all())


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def fill(
    module: nn.Module, tensors: Mapping[str, Tensor], *, generator: torch.Generator | None = None
) -> None:
    """Give a module that was built on the meta device its parameters: ``tensors`` as float32, the others
    the family's starting values. Parameters that stand in two places (tied) stay one parameter."""
    replaced: dict[int, nn.Parameter] = {}
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    for owner in module.modules():
        for leaf, parameter in list(owner.named_parameters(recurse=False)):
            if id(parameter) not in replaced:
                tensor = tensors.get(names[id(parameter)])
                value = _empty(parameter.shape) if tensor is None else tensor.detach().float()
                replaced[id(parameter)] = nn.Parameter(value, requires_grad=parameter.requires_grad)
            setattr(owner, leaf, replaced[id(parameter)])
    fresh = [name for name, _ in module.named_parameters() if name not in tensors]
    if isinstance(module, Stack):
        initialise(module, config=module.config, only=set(fresh), generator=generator)


def _empty(shape: torch.Size) -> Tensor:
    try:
        return torch.empty(shape)
    except RuntimeError as error:  # what torch makes of a refusal by the system
        raise ResourceError(
            f"not enough memory for a fresh parameter {tuple(shape)}", remedy="make the model smaller"
        ) from error
