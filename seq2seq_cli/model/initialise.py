"""The starting values of a module's parameters, the way its family was published."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn

from seq2seq_cli.model.config import StackConfig
from seq2seq_cli.model.positions import interleaved_sinusoids


def initialise(
    module: nn.Module,
    *,
    config: StackConfig,
    only: Collection[str] | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Give the parameters named in ``only`` (default: all) their starting values, the family's way.

    normal(0, init_std) for matrices, zero biases, norms at identity. scaled_residual: GPT-2 shrinks the
    projections that add to the residual stream by sqrt(2 * layers) (Radford et al. 2019, 2.3). fan_in: T5
    draws each matrix with the inverse root of its input's width times ``init_std``, its embeddings with
    ``init_std`` alone (the published code). uniform: from -init_std to init_std, but for the maps of an
    adaptive vocabulary.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if only is not None and name not in only:
                continue
            owner, _, leaf = name.rpartition(".")
            if leaf == "bias":
                parameter.zero_()
            elif owner.endswith("norm"):
                parameter.fill_(1.0)
            elif owner == "position_embedding" and config.embedding.positions == "fixed":
                parameter.copy_(interleaved_sinusoids(*parameter.shape))
            elif config.init == "uniform" and ".projections." not in owner:
                parameter.uniform_(-config.init_std, config.init_std, generator=generator)
            else:
                parameter.normal_(0.0, _std(config, owner, parameter), generator=generator)


def _std(config: StackConfig, owner: str, parameter: Tensor) -> float:
    if config.embedding.adaptive is not None and ".projections." in owner:
        return config.embedding.adaptive.projection_init_std
    if owner.endswith("embedding") and config.embedding.init_std is not None:
        return config.embedding.init_std
    if config.init == "scaled_residual" and owner.endswith(("output", "outer")):
        return config.init_std / math.sqrt(2 * config.num_layers)
    if config.init == "fan_in" and owner not in ("embedding", "head"):
        width = config.hidden_size if owner == "relative_bias.table" else parameter.shape[-1]
        if owner.endswith("attention.query"):
            width *= config.head_size
        return config.init_std / math.sqrt(width)
    return config.init_std
