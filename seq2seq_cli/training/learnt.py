"""The parameters that learn: as they are, and as the result has them where that is their running average."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.training.optimizer import Parts

#: what a run needs to go on where the model's files do not tell it
WEIGHTS_FILE = "training_weights.safetensors"


class Learnt:
    """All parameters of ``parts`` that ever learn, by name.

    decay: keep their exponential moving average (Polyak and Juditsky 1992), which is what is evaluated and
    saved; None = the result are the parameters themselves. At step t (from 0) the decay is at most
    (1 + t) / (10 + t), so that short runs forget what they started from. apart: a checkpoint's model files do
    not hold the parameters as they are (they are merged into others there).
    """

    def __init__(self, parts: Parts, *, decay: float | None = None, apart: bool = False) -> None:
        self._decay, self._apart = decay, apart
        self._parameters = {n: p for part in parts.parts if not part.frozen for n, p in part.parameters}
        self._averages: list[Tensor] = []
        if decay is not None:
            self._averages = [parameter.detach().clone() for parameter in self._parameters.values()]

    @property
    def nbytes(self) -> int:
        """What the averages take."""
        return sum(average.nbytes for average in self._averages)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the parameters after ``step`` (from 0) into their averages."""
        if self._decay is not None:
            keep = min(self._decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(self._averages, [p.detach() for p in self._parameters.values()], 1 - keep)

    @contextmanager
    def as_result(self) -> Iterator[dict[str, Tensor]]:
        """The parameters as the result has them, for the time of the block; it is given what a checkpoint has
        to hold beside the model's files. In place, because decoding knows by a tensor's version whether what
        it prepared still holds."""
        if self._decay is None:
            yield {f"raw.{n}": p.detach() for n, p in self._parameters.items()} if self._apart else {}
            return
        self._swap()
        try:
            # the two have changed places: what was averaged is now in the parameters
            raw = zip(self._parameters, self._averages, strict=True)
            both = {f"raw.{name}": tensor for name, tensor in raw}
            yield both | {f"average.{name}": p.detach() for name, p in self._parameters.items()}
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in zip(self._parameters.values(), self._averages, strict=True):
            aside = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(aside)

    @torch.no_grad()
    def restore(self, folder: Path) -> None:
        """Take over what ``as_result`` gave a checkpoint. CheckpointError when it is not all there."""
        if self._decay is None and not self._apart:
            return
        from safetensors.torch import load_file

        from seq2seq_cli.checkpoint.safetensors_header import read_header

        path = folder / WEIGHTS_FILE
        wanted: dict[str, Tensor] = {f"raw.{name}": p for name, p in self._parameters.items()}
        if self._decay is not None:
            averages = zip(self._parameters, self._averages, strict=True)
            wanted |= {f"average.{name}": tensor for name, tensor in averages}
        if not path.is_file():
            raise CheckpointError(f"{WEIGHTS_FILE} is missing", where=str(folder))
        read_header(path)  # refuses a hostile file before the library sees it
        found = load_file(path)
        wrong = sorted(found.keys() ^ wanted.keys())
        wrong += [name for name in wanted.keys() & found.keys() if wanted[name].shape != found[name].shape]
        if wrong:
            raise CheckpointError(f"{wrong[0]} does not fit this run's parameters", where=str(path))
        for name, tensor in wanted.items():
            tensor.copy_(found[name])
