"""Which parameters learn, how fast, and from when: the parts of a model as optimizer groups."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from seq2seq_cli.errors import UsageError
from seq2seq_cli.training.adafactor import Adafactor
from seq2seq_cli.training.schedules import learning_rate, warmup_count
from seq2seq_cli.training.sharding import local

if TYPE_CHECKING:
    from seq2seq_cli.recipe.sections import TrainingSection

#: AdamW with its moments in eight bits: one optimizer, of another package, under transformers' two names
EIGHT_BITS = ("adamw_8bit", "adamw_bnb_8bit")
PARTS = ("encoder", "decoder", "cross_attention", "fresh")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of the model with its settings. ``parameters`` are (name, parameter), shared ones once."""

    name: str
    parameters: tuple[tuple[str, nn.Parameter], ...]
    peak: float  #: highest learning rate
    weight_decay: float
    warmup: int | float  #: steps, or a share of the steps that this part learns
    schedule: str = "linear"
    freeze_steps: int = 0  #: steps before it learns
    freeze_after: int | None = None  #: steps after which it no longer does; None = it learns to the end
    frozen: bool = False  #: never learns

    def learns(self, step: int) -> bool:
        """Whether this part learns in ``step`` (from 0)."""
        ended = self.freeze_after is not None and step >= self.freeze_after
        return not self.frozen and self.freeze_steps <= step and not ended

    def rate(self, step: int, total: int) -> float:
        """The learning rate for ``step`` (from 0) of ``total``. A part that starts later has its own warm-up
        then; its schedule ends where it ends to learn, else with the run."""
        if not self.learns(step):
            return 0.0
        end = total if self.freeze_after is None else min(total, self.freeze_after)
        steps = max(1, end - self.freeze_steps)
        warmup = warmup_count(self.warmup, steps)
        return learning_rate(self.schedule, self.peak, step - self.freeze_steps, warmup=warmup, total=steps)

    def warmed_up(self, step: int, total: int) -> bool:
        """True when this part has learnt at its highest rate by ``step`` of ``total``, or never learns."""
        warmup = warmup_count(self.warmup, max(1, total - self.freeze_steps))
        return self.frozen or step > self.freeze_steps + warmup


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All parts of a model that have parameters, and the names of those that never get a gradient."""

    parts: tuple[Part, ...]
    left_out: tuple[str, ...] = field(default=())

    def set_frozen(self, step: int) -> None:
        """Let exactly the parts learn that do so at ``step``; the others get no gradient and drop theirs."""
        for part in self.parts:
            learns = part.learns(step)
            for _, parameter in part.parameters:
                parameter.requires_grad_(learns)
                if not learns:
                    parameter.grad = None

    def set_open(self) -> None:
        """Let everything learn that ever will."""
        for part in self.parts:
            for _, parameter in part.parameters:
                parameter.requires_grad_(not part.frozen)

    def idle_step(self, total: int) -> int | None:
        """The first of ``total`` steps in which no part learns; None when there is none."""
        edges = {
            0,
            *(edge for p in self.parts for edge in (p.freeze_steps, p.freeze_after) if edge is not None),
        }
        idle = (e for e in sorted(edges) if e < total and not any(p.learns(e) for p in self.parts))
        return next(idle, None)


def split_parts(
    model: nn.Module,
    training: TrainingSection,
    *,
    fresh: Collection[str] = (),
    freeze: Collection[str] = (),
    reached: Collection[int] | None = None,
    base: Collection[str] = (),
) -> Parts:
    """Sort the model's parameters into parts with the settings of ``training.groups``.

    fresh: names of newly initialised parameters. They are a part of their own only where the recipe speaks
    of one (``groups.fresh`` or ``freeze: [fresh]``); that part comes before cross_attention, and that before
    the side. A parameter that both sides share counts once, as the decoder's. freeze: parts that never
    learn. reached: ids of the parameters that the loss depends on (None: all); the others are left out and
    frozen. base: names of parameters that stand still beside their low-rank updates; they are the part
    ``base``.
    """
    speaks_of_fresh = training.groups.fresh is not None or "fresh" in freeze
    chosen: dict[str, list[tuple[str, nn.Parameter]]] = {name: [] for name in PARTS}
    fresh_names = set(fresh)
    left_out = []
    held, still = set(base), []
    for names, parameter in _named_once(model):
        name = names[0]
        if reached is not None and id(parameter) not in reached:
            parameter.requires_grad_(False)
            left_out.append(name)
            continue
        if not held.isdisjoint(names):
            still.append((name, parameter))
            continue
        is_fresh = speaks_of_fresh and not fresh_names.isdisjoint(names)
        chosen["fresh" if is_fresh else part_name(model, name)].append((name, parameter))
    parts = []
    for name, members in chosen.items():
        group = getattr(training.groups, name)
        settings = {} if group is None else group.model_dump(exclude_none=True)
        part = Part(
            name=name,
            parameters=tuple(members),
            peak=settings.get("learning_rate", training.learning_rate),
            weight_decay=settings.get("weight_decay", training.weight_decay),
            warmup=settings.get("warmup_steps", training.warmup_steps),
            schedule=settings.get("lr_scheduler_type", training.lr_scheduler_type),
            freeze_after=settings.get("freeze_after"),
            freeze_steps=settings.get("freeze_steps", 0),
            frozen=name in freeze or settings.get("freeze", False),
        )
        if members:
            parts.append(part)
    if still:
        parts.append(
            Part(name="base", parameters=tuple(still), peak=0.0, weight_decay=0.0, warmup=0, frozen=True)
        )
    return Parts(parts=tuple(parts), left_out=tuple(left_out))


def part_name(model: nn.Module, name: str) -> str:
    """encoder, decoder or cross_attention (with the projection between the sides) for a parameter's name.
    A single stack is all decoder when it is causal, all encoder when it is not, or when it does both."""
    if name.startswith("projection.") or ".cross_attention." in name or ".cross_norm." in name:
        return "cross_attention"
    if name.startswith(("encoder.", "decoder.")):
        return name.partition(".")[0]
    if name.startswith("stack."):
        return "encoder"
    return "decoder" if getattr(model, "config").causal else "encoder"  # noqa: B009


def _named_once(model: nn.Module) -> Iterable[tuple[list[str], nn.Parameter]]:
    """Every parameter once with all its names, the decoder's first."""
    found: dict[int, tuple[list[str], nn.Parameter]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        found.setdefault(id(parameter), ([], parameter))[0].append(name)
    return [(sorted(names, key=lambda n: not n.startswith("decoder.")), p) for names, p in found.values()]


def make_optimizer(parts: Parts, training: TrainingSection) -> torch.optim.Optimizer:
    """The optimizer that ``training.optim`` names: AdamW (Loshchilov and Hutter 2019), fused, plain or with
    its moments in eight bits (Dettmers et al. 2022), or Adafactor. Biases and norms are not decayed. Every
    group carries the name of its ``part``."""
    groups = []
    for part in parts.parts:
        if part.frozen:
            continue
        decayed = [parameter for name, parameter in part.parameters if _is_decayed(name)]
        plain = [parameter for name, parameter in part.parameters if not _is_decayed(name)]
        for members, decay in ((decayed, part.weight_decay), (plain, 0.0)):
            if members:
                groups.append({"params": members, "weight_decay": decay, "part": part.name})
    rate = training.learning_rate
    if training.optim == "adafactor":
        return Adafactor(groups, lr=rate, **training.adafactor.model_dump())
    betas, epsilon = (training.adam_beta1, training.adam_beta2), training.adam_epsilon
    if training.optim in EIGHT_BITS:
        from bitsandbytes.optim import AdamW8bit

        made: torch.optim.Optimizer = AdamW8bit(groups, lr=rate, betas=betas, eps=epsilon)
        return made
    fused = training.optim == "adamw_torch_fused"
    return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=epsilon, fused=fused)


def check_optimizer(name: str, *, where: str) -> None:
    """UsageError when the package that the optimizer ``name`` comes from is not there."""
    if name in EIGHT_BITS and find_spec("bitsandbytes") is None:
        what = f"optim: {name} needs the package bitsandbytes"
        raise UsageError(what, where=where, remedy="pip install 's2s[8bit]', or write optim: adafactor")


def _is_decayed(name: str) -> bool:
    owner, _, leaf = name.rpartition(".")
    return leaf != "bias" and not owner.endswith("norm")


def set_rates(optimizer: torch.optim.Optimizer, parts: Parts, step: int, total: int) -> dict[str, float]:
    """Give every group its rate for ``step`` of ``total``; part -> rate, of those that ever learn."""
    rates = {part.name: part.rate(step, total) for part in parts.parts if not part.frozen}
    for group in optimizer.param_groups:
        group["lr"] = rates[group["part"]]
    return rates


def gradient_norms(
    parts: Parts, *, total_of: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The Euclidean norm of all gradients together, and of each part that has any; scalars, no sync.
    ``total_of`` adds up numbers over all processes, where each has a slice of the gradients."""
    squares = {}
    for part in parts.parts:
        gradients = [local(p.grad) for _, p in part.parameters if p.grad is not None]
        if gradients:
            norms = torch.stack(torch._foreach_norm(gradients))
            squares[part.name] = norms.square().sum()
    if total_of is not None and squares:
        squares = dict(zip(squares, total_of(torch.stack(list(squares.values()))), strict=True))
    total = torch.stack(list(squares.values())).sum().sqrt() if squares else torch.zeros(())
    return total, {name: square.sqrt() for name, square in squares.items()}


def clip_gradients(parts: Parts, total: float, limit: float) -> None:
    """Scale all gradients so that their common norm ``total`` becomes ``limit`` where it is above it."""
    if limit and total > limit:
        learnt = (p.grad for part in parts.parts for _, p in part.parameters if p.grad is not None)
        gradients = [local(gradient) for gradient in learnt]
        torch._foreach_mul_(gradients, limit / (total + 1e-6))
