"""How much memory a training step needs, worked out from two small ones."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from seq2seq_cli.data.batch import Batch
from seq2seq_cli.errors import is_out_of_memory
from seq2seq_cli.model.losses import IGNORED, summed_loss
from seq2seq_cli.training.machine import held
from seq2seq_cli.training.module import tensors_of

if TYPE_CHECKING:
    from seq2seq_cli.training.stepper import Stepper

Strategy = Literal["ddp", "fsdp2"]
_PHASES = ("forward", "backward", "update")
#: what the C library's allocator takes for tensors of ever changing sizes, over what they hold: blocks that
#: were given back lie between others and fit nothing. Measured on Linux after a few steps: 1.3 to 1.5
_SCATTERED = 1.35


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes on one device while a batch of ``rows`` is learnt from.

    ``program``: the process with everything but tensors of the model. ``base`` and ``by_row``: the highest
    that tensors made within a step come to in each of its phases, gradients included: base + by_row * rows.
    ``scattered``: what the allocator takes for each byte of them. ``unit``: the parameters that FSDP holds
    whole at one time.
    """

    rows: int
    program: float
    weights: float
    gradients: float
    optimizer: float
    average: float
    base: tuple[float, ...]
    by_row: tuple[float, ...]
    unit: float
    scattered: float = 1.0
    processes: int = 1
    strategy: Strategy = "ddp"

    def step(self, rows: int) -> float:
        """What a step takes at its highest beside what lasts."""
        return self.scattered * max(b + rows * each for b, each in zip(self.base, self.by_row, strict=True))

    @property
    def lasting(self) -> float:
        """What stays between steps: weights, the optimizer's state and a running average of the weights."""
        return self.weights + self.optimizer + self.average

    def peak(self, rows: int | None = None) -> float:
        """The most that one device needs.

        DDP collects the gradients a second time, in buckets. FSDP2 (``fully_shard`` of each layer, then of
        the whole) divides what lasts and the gradients among the processes, and holds one unit whole: its
        weights and its gradients.
        """
        rows = self.rows if rows is None else rows
        if self.processes == 1:
            return self.program + self.lasting + self.step(rows)
        if self.strategy == "ddp":
            return self.program + self.lasting + self.step(rows) + self.gradients
        shard = (self.lasting + self.gradients) / self.processes
        activations = max(self.step(rows) - self.gradients, rows * max(self.by_row))
        return self.program + shard + activations + 2 * self.unit

    def fitting(self, room: float) -> int:
        """The most rows, of the same lengths, whose peak is within ``room``; 0 when not even one is."""
        rows = self.rows
        while rows and self.peak(rows) > room:
            rows = min(rows - 1, math.ceil(rows * 0.98))
        return rows


def estimate(stepper: Stepper, rows: Sequence[int]) -> Estimate:
    """The memory of learning from the training rows ``rows``, from steps on an eighth and a quarter of them,
    or on fewer where these do not fit.

    The model is changed by it. What the steps make is counted tensor by tensor; what the libraries take for
    themselves is not seen, but is in ``program`` once they have warmed up.
    """
    batch = stepper.prepared.collate(rows, 0)
    few = max(1, len(rows) // 8)
    while (measured := _measure(stepper, batch, few)) is None:
        few //= 2
    low, high, more = measured
    by_row = tuple(max(0.0, (h - l) / max(1, more - few)) for l, h in zip(low, high, strict=True))  # noqa: E741
    model = stepper.prepared.bundle.model
    trained = [p for part in stepper.parts.parts if not part.frozen for _, p in part.parameters]
    states: list[Any] = [
        value for state in stepper.plain_optimizer.state.values() for value in state.values()
    ]
    found = Estimate(
        rows=len(rows),
        program=0.0,
        weights=sum(p.nbytes for p in model.parameters()),
        gradients=sum(p.nbytes for p in trained),
        optimizer=float(sum(value.nbytes for value in states if isinstance(value, Tensor))),
        average=stepper.learnt.nbytes,
        base=tuple(each - few * slope for each, slope in zip(low, by_row, strict=True)),
        by_row=by_row,
        unit=_unit(model),
        scattered=_SCATTERED if stepper.accelerator.device.type == "cpu" else 1.0,
    )
    return replace(found, program=max(0.0, held() - found.lasting))


def _measure(
    stepper: Stepper, batch: Batch, few: int
) -> tuple[tuple[float, ...], tuple[float, ...], int] | None:
    """The most bytes in each phase with the first ``few`` rows and with twice as many, and how many these
    were; None where they do not fit, but fewer may."""
    more = min(len(batch.rows), 2 * few)
    try:
        _fill_buffers(stepper, batch)
        _step(stepper, _part(batch, few))  # the optimizer makes its state, and libraries warm up
        low = _step(stepper, _part(batch, few))
        return low, _step(stepper, _part(batch, more)) if more > few else low, more
    except (RuntimeError, MemoryError) as error:
        if few == 1 or not is_out_of_memory(error):
            raise
        return None


def _unit(model: torch.nn.Module) -> float:
    """Bytes of what FSDP holds whole: what is in no layer, and the largest layer."""
    layers = [m for name, m in model.named_modules() if name.rpartition(".")[0].endswith("layers")]
    sizes = [sum(p.nbytes for p in layer.parameters()) for layer in layers]
    return float(sum(p.nbytes for p in model.parameters()) - sum(sizes) + max(sizes, default=0))


def _part(batch: Batch, rows: int) -> Batch:
    """The first rows of a batch, as wide as the whole."""

    def cut(tensor: Tensor | None) -> Any:
        return None if tensor is None else tensor[:rows].clone()

    names = ("source_ids", "source_mask", "target_ids", "target_mask", "labels")
    return Batch(**{name: cut(getattr(batch, name)) for name in names}, rows=batch.rows[:rows])


def _fill_buffers(stepper: Stepper, batch: Batch) -> None:
    """Let the loss make the buffer that it keeps as large as the whole batch will want it."""
    stack = stepper.prepared.bundle.decoder
    assert stack.head is not None
    labels = batch.labels[batch.labels != IGNORED].to(stepper.accelerator.device).unsqueeze(0)
    with torch.no_grad(), stepper.accelerator.autocast():
        states = torch.zeros(*labels.shape, stack.config.hidden_size, device=labels.device)
        summed_loss(stack.head, states, labels)


def _step(stepper: Stepper, batch: Batch) -> tuple[float, ...]:
    """Learn from ``batch``, as often as a process does in one step; the most bytes in each phase."""
    parameters = [p for part in stepper.parts.parts for _, p in part.parameters]
    for parameter in parameters:
        parameter.grad = None
    stepper.module.train()
    meter = _Meter()
    highest = dict.fromkeys(_PHASES, 0.0)
    with meter:
        for _ in range(min(2, stepper.training.gradient_accumulation_steps)):
            loss = stepper.module(*tensors_of(batch, stepper.accelerator.device))
            highest["forward"] = max(highest["forward"], meter.restart())
            stepper.accelerator.backward(loss / max(1, batch.label_count))
            del loss
            highest["backward"] = max(highest["backward"], meter.restart())
        stepper.plain_optimizer.step()
        highest["update"] = meter.restart()
    for parameter in parameters:
        parameter.grad = None
    return tuple(highest.values())


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that appear while it is on, until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._now = self._most = 0.0
        self._known: dict[int, weakref.ref[Any]] = {}

    def restart(self) -> float:
        """The most that there was since the last call."""
        most, self._most = self._most, self._now
        return most

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {id(t.untyped_storage()) for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage(), before)
        return out

    def _see(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        key = id(storage)
        if key in before or key in self._known:
            return
        size = storage.nbytes()

        def freed(_: object) -> None:
            self._known.pop(key, None)
            self._now -= size

        self._known[key] = weakref.ref(storage, freed)
        self._now += size
        self._most = max(self._most, self._now)
