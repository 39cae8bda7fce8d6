"""Tiny random checkpoints in the published format, made by the reference implementation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import EncoderDecoderConfig, EncoderDecoderModel

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def scramble(model: Any, seed: int = 0, std: float = 0.3) -> Any:
    """Weights large enough that every part of the model shows in its output; gains of norms around 1, so
    that none of it is drowned."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, std, generator=generator)
            if parameter.ndim == 1 and name.endswith("weight"):
                parameter.add_(1.0)
    return model.eval()


def base(family: str) -> dict[str, Any]:
    """The family's tiny config.json, without its model_type."""
    from tests.families.spec import spec

    return {key: value for key, value in spec(family).base.items() if key != "model_type"}


def config(family: str, **changes: Any) -> Any:
    return transformers.AutoConfig.for_model(family, **{**base(family), **changes})


def language_model(family: str, seed: int = 0, **changes: Any) -> Any:
    """A causal language model of a family."""
    from tests.families.spec import spec

    return spec(family).model("decoder", seed=seed, **changes)


def save_encoder(family: str, folder: Path, seed: int = 0, **changes: Any) -> Any:
    """A bare encoder, saved."""
    model = scramble(transformers.AutoModel.from_config(config(family, **changes)), seed)
    model.save_pretrained(folder)
    return model


def save_language_model(family: str, folder: Path, seed: int = 1, **changes: Any) -> Any:
    model = language_model(family, seed, **changes)
    model.save_pretrained(folder)
    return model


def pair(
    encoder: str,
    decoder: str,
    seed: int = 0,
    *,
    encoder_changes: dict[str, Any] | None = None,
    decoder_changes: dict[str, Any] | None = None,
) -> Any:
    """transformers' own encoder-decoder with usable special ids (start 1, eos 2, pad 0)."""
    left = config(encoder, **(encoder_changes or {}))
    right = config(decoder, **(decoder_changes or {}))
    both = EncoderDecoderConfig.from_encoder_decoder_configs(left, copy.deepcopy(right))
    model = scramble(EncoderDecoderModel(both), seed)
    for settings in (model.config, model.generation_config):
        settings.decoder_start_token_id = 1
        settings.eos_token_id = 2
        settings.pad_token_id = 0
        settings.bos_token_id = 1
    return model


def padded(rows: list[list[int]], *, pad: int = 0, left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """ids [B, L] and mask [B, L] of rows of unequal length."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        ids[number, where] = torch.tensor(row)
        mask[number, where] = 1
    return ids, mask


def relative_error(ours: torch.Tensor, theirs: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """Largest difference over the largest value, where the mask [B, L] is visible."""
    difference = (ours - theirs).abs()
    if mask is not None:
        difference = difference * mask[..., None]
    return float(difference.max() / theirs.abs().max())


def same_hypotheses(
    ours: Any, theirs: Any, *, prompt: int = 1, ends: frozenset[int] = frozenset({0, 2})
) -> None:
    """Our rows of hypotheses are transformers' sequences (behind ``prompt`` tokens), scores included.

    theirs: the output of generate(..., return_dict_in_generate=True, output_scores=True).
    """
    flat = [hypothesis for row in ours for hypothesis in row]
    scores = getattr(theirs, "sequences_scores", None)
    assert len(flat) == len(theirs.sequences)
    for number, hypothesis in enumerate(flat):
        expected = theirs.sequences[number].tolist()[prompt:]
        length = len(hypothesis.ids)
        assert hypothesis.ids == expected[:length], (number, hypothesis, expected)
        assert set(expected[length:]) <= ends, (number, hypothesis, expected)
        if scores is not None:
            assert abs(float(scores[number]) - hypothesis.score) < 1e-5 * max(1.0, abs(hypothesis.score))
