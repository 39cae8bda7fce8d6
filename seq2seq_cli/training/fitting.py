"""The largest batch that fits into memory, found by trying, and what to say when one does not fit."""

from __future__ import annotations

import gc
import resource
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from seq2seq_cli import console
from seq2seq_cli.data.batches import plan_validation
from seq2seq_cli.errors import ResourceError, is_out_of_memory
from seq2seq_cli.training.machine import address_space, free_addresses, limits
from seq2seq_cli.training.module import TrainingModule, tensors_of
from seq2seq_cli.training.steps import BATCHES

if TYPE_CHECKING:
    from accelerate import Accelerator

    from seq2seq_cli.recipe import Recipe
    from seq2seq_cli.training.setup import Prepared

#: of what is free, this much may be used in a trial: later batches differ a little
_SHARE = 0.9
#: bytes a parameter: AdamW's two averages of its gradient, what DDP collects that in, its own average
_OPTIMIZER, _EXCHANGE, _AVERAGE = 8, 4, 4


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A step's batches: each of so many padded tokens, or rows, and so many of them a process."""

    tokens: int | None
    rows: int | None
    accumulation: int

    @classmethod
    def of(cls, recipe: Recipe) -> Cut:
        """As the recipe has it."""
        training = recipe.training
        return cls(
            tokens=training.tokens_per_batch,
            rows=training.per_device_train_batch_size,
            accumulation=training.gradient_accumulation_steps,
        )

    def parted(self, parts: int) -> Cut | None:
        """The same step in ``parts`` batches a process; None where that would be less than a token or row."""
        tokens = self.tokens and self.tokens * self.accumulation // parts
        rows = self.rows and self.rows * self.accumulation // parts
        if tokens == 0 or rows == 0:
            return None
        return Cut(tokens=tokens, rows=rows, accumulation=parts)

    def __str__(self) -> str:
        size = f"tokens_per_batch: {self.tokens}" if self.tokens else ""
        rows = f"per_device_train_batch_size: {self.rows}" if self.rows else ""
        return ", ".join(filter(None, (size, rows, f"gradient_accumulation_steps: {self.accumulation}")))

    def values(self) -> dict[str, int | None]:
        """These numbers by the names that a recipe has for them."""
        return {
            "tokens_per_batch": self.tokens,
            "per_device_train_batch_size": self.rows,
            "gradient_accumulation_steps": self.accumulation,
        }

    def into(self, recipe: Recipe) -> Recipe:
        """The recipe with these numbers."""
        return replace(recipe, training=recipe.training.model_copy(update=self.values()))

    def as_asked(self) -> dict[str, int | None]:
        """What a run's identity says of these numbers beside those that were found for them."""
        return {f"training.{name} (as asked for)": value for name, value in self.values().items()}


def remembered(recipe: Recipe, identity: Mapping[str, Any], *, processes: int) -> Recipe:
    """The recipe with the batches that an earlier start of the run found, and its checkpoint tells."""
    batches = identity.get(BATCHES, processes)
    cut = Cut(
        tokens=identity.get("training.tokens_per_batch"),
        rows=identity.get("training.per_device_train_batch_size"),
        accumulation=max(1, batches // processes),
    )
    return cut.into(recipe)


def find_cut(prepared: Prepared, accelerator: Accelerator) -> Cut:
    """The step of the recipe in as few batches as fit into memory, the same in every process.

    ResourceError when not even a single row fits.
    """
    held = _held(prepared, accelerator)
    with _limited():
        found = _largest(prepared, accelerator, held=held)
    if found is None:
        raise ResourceError(
            f"not enough memory to train this model on a single row ({limits()})",
            remedy="take a smaller model, shorter max_source_length and max_target_length, "
            "or gradient_checkpointing: true",
        )
    console.say(f"the largest batch that fits: {found}")
    return found


def _largest(
    prepared: Prepared, accelerator: Accelerator, *, held: int, parts: int = 1, most: int = 2**16
) -> Cut | None:
    asked = Cut.of(prepared.recipe)
    while parts <= most and (cut := asked.parted(parts)) is not None:
        fits = _fits(prepared, accelerator, cut, held=held)
        if accelerator.num_processes > 1:
            ones = torch.tensor(float(fits), device=accelerator.device)
            fits = int(accelerator.reduce(ones, "sum").item()) == accelerator.num_processes
        if fits:
            return cut
        parts *= 2
    return None


def _fits(prepared: Prepared, accelerator: Accelerator, cut: Cut, *, held: int) -> bool:
    """Whether the worst batches of this size go forward and back, with ``held`` bytes taken by others."""
    device = accelerator.device
    module = TrainingModule(prepared.bundle.model.to(device))
    prepared.parts.set_open()
    try:
        ballast = torch.empty(held, dtype=torch.uint8, device=device)
        for rows in worst_batches(prepared.train.lengths, cut):
            module.train()
            with accelerator.autocast():
                loss = module(*tensors_of(prepared.collate(rows, 0), device))
            loss.backward()
        del ballast
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        loss = None
        module.zero_grad(set_to_none=True)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return True


def worst_batches(lengths: Any, cut: Cut) -> list[list[int]]:
    """The batches that take most memory: most positions, most targets, and most pairs of positions."""
    sizes = np.asarray(lengths, np.int64)
    batches = plan_validation(sizes, tokens_per_batch=cut.tokens, batch_size=cut.rows)
    most = [sizes[batch].max(axis=0) for batch in batches]
    costs: tuple[Callable[[int], int], ...] = (
        lambda i: len(batches[i]) * int(most[i].sum()),
        lambda i: len(batches[i]) * int(most[i][1]),
        lambda i: len(batches[i]) * int((most[i] ** 2).sum()),
    )
    chosen = dict.fromkeys(max(range(len(batches)), key=cost) for cost in costs)
    return [batches[i] for i in chosen]


def _held(prepared: Prepared, accelerator: Accelerator) -> int:
    """Bytes that training will hold beside weights, gradients and what a batch needs."""
    return _trained(prepared) * (
        _OPTIMIZER
        + (_EXCHANGE if accelerator.num_processes > 1 else 0)
        + (0 if prepared.recipe.training.ema_decay is None else _AVERAGE)
    )


def _trained(prepared: Prepared) -> int:
    """How many parameters learn."""
    return sum(p.numel() for part in prepared.parts.parts if not part.frozen for _, p in part.parameters)


# -- when a batch does not fit ---------------------------------------------------------------------------


@contextmanager
def explained(
    prepared: Prepared, accelerator: Accelerator, optimizer: torch.optim.Optimizer
) -> Iterator[None]:
    """Turn running out of memory into a ResourceError that names the limit and a batch that would fit."""
    try:
        yield
        return
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold what the step computed
        what = " ".join(str(error).split())
    asked, parts = Cut.of(prepared.recipe), 2 * prepared.recipe.training.gradient_accumulation_steps
    prepared.bundle.model.zero_grad(set_to_none=True)
    gc.collect()
    if accelerator.num_processes == 1:
        there = sum(
            t.nbytes for kept in optimizer.state.values() for t in kept.values() if torch.is_tensor(t)
        )
        held = max(0, _trained(prepared) * _OPTIMIZER - there)  # an average is there from the beginning
        with _limited():
            cut = _largest(prepared, accelerator, held=held, parts=parts)
    else:  # the others would have to try along, and wait for this one elsewhere
        cut = asked.parted(parts)
    remedy = "take a smaller model or shorter rows; not even a batch of one row fits"
    if cut is not None:
        remedy = f"write {cut}, or auto_find_batch_size: true"
    raise ResourceError(
        f"not enough memory for a batch of {asked} ({limits()}; {what[:200]})", remedy=remedy
    ) from None


@contextmanager
def _limited() -> Iterator[None]:
    """A block in which taking much more memory than there is fails, instead of ending the process."""
    room, taken = free_addresses(), address_space()
    # a GPU maps far more addresses than it uses memory; on another system than Linux the trial goes without
    if room is None or taken is None or torch.cuda.is_available():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + int(_SHARE * max(0, room)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
