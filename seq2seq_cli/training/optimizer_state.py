"""What an optimizer knows of each parameter, as tensors with names, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.training.adafactor import moments
from seq2seq_cli.training.sharding import like, local, stored

#: tensors of a parameter's own shape: both moments of AdamW, in full or in eight bits
_LIKE_PARAMETER = {"exp_avg", "exp_avg_sq", "state1", "state2"}
#: sizes that follow from a parameter's in ways that only its optimizer knows: scales of blocks, code books
_BLOCKS = {"absmax1", "absmax2", "qmap1", "qmap2"}


def state_tensors(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """``PARAMETER.key`` -> tensor. A whole number (8-bit AdamW's count of steps) becomes an int64 scalar."""
    tensors: dict[str, Tensor] = {}
    seen = set()
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            tensor = torch.as_tensor(value).detach().contiguous()
            # the file format refuses two names for one memory, as code books have that all parameters share
            where = local(tensor).data_ptr()
            shared = where in seen
            seen.add(where)
            tensors[f"{names[parameter]}.{key}"] = tensor.clone() if shared else tensor
    return tensors


def restore(path: Path, optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> None:
    """Give ``optimizer`` the state in a file, or in the slices of it that several processes wrote, in memory
    of its own. CheckpointError for what fits no parameter."""
    from seq2seq_cli.checkpoint.safetensors_header import read_header

    parameters = {name: parameter for parameter, name in names.items()}
    for key, tensor in stored(path.parent, path.name, read_header):
        name, _, leaf = key.rpartition(".")
        parameter = parameters.get(name)
        if parameter is None or not _fits(leaf, tensor, parameter):
            raise CheckpointError(f"optimizer state {key!r} fits no parameter", where=str(path))
        if leaf == "step":
            optimizer.state[parameter][leaf] = tensor.clone() if tensor.is_floating_point() else int(tensor)
        else:
            optimizer.state[parameter][leaf] = like(tensor, parameter)


def _fits(leaf: str, tensor: Tensor, parameter: Tensor) -> bool:
    if leaf == "step":
        return tensor.ndim == 0
    shapes = dict.fromkeys(_LIKE_PARAMETER, parameter.shape) | moments(parameter)
    return leaf in _BLOCKS or shapes.get(leaf) == tensor.shape
