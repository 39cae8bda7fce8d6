"""Every family beside transformers' own: time to encode a batch, and of one training step."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import WANTED_MEMORY, Row, beside, speedup
from benchmarks.worker import Worker
from benchmarks.workload import Size, quiet_transformers

#: what the families call width, depth, heads and inner width; None = follows from the width
_SIZES: dict[str, tuple[str, str, str, str | None]] = {
    "albert": ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    "bart": ("d_model", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim"),
    "bert": ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    "camembert": ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    "ctrl": ("n_embd", "n_layer", "n_head", "dff"),
    "distilbert": ("dim", "n_layers", "n_heads", "hidden_dim"),
    "gpt2": ("n_embd", "n_layer", "n_head", None),
    "openai-gpt": ("n_embd", "n_layer", "n_head", None),
    "roberta": ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    "t5": ("d_model", "num_layers", "num_heads", "d_ff"),
    "transfo-xl": ("d_model", "n_layer", "n_head", "d_inner"),
    "xlm": ("emb_dim", "n_layers", "n_heads", None),
    "xlnet": ("d_model", "n_layer", "n_head", "d_inner"),
}
FAMILIES = tuple(_SIZES)
#: transformers 5 has it no more: measured beside 4.30.2, which lives in an environment of its own
OLD = "transfo-xl"
#: the other side of a whole encoder-decoder is of the same size
_OTHER_SIDE = {
    "bart": {
        "encoder_layers": "decoder_layers",
        "encoder_attention_heads": "decoder_attention_heads",
        "encoder_ffn_dim": "decoder_ffn_dim",
    },
}
WHOLE = ("bart", "t5")
#: no causal class in transformers: trained as masked language models
_MASKED = ("albert", "distilbert")


def role_of(family: str, task: str) -> str:
    """The role in which s2s loads the family for a task (encode or train)."""
    return "encoder" if task == "encode" else "masked_lm" if family in _MASKED else "decoder"


def config_of(family: str, size: Size) -> dict[str, Any]:
    """A config.json of the benchmark's size, without dropout so that both compute the same."""
    width, depth, heads, inner = _SIZES[family]
    config: dict[str, Any] = {
        "model_type": family,
        "vocab_size": size.source_vocabulary,
        width: size.hidden_size,
        depth: size.num_layers,
        heads: size.num_heads,
    }
    if inner is not None:
        config[inner] = 4 * size.hidden_size
    for one, other in _OTHER_SIDE.get(family, {}).items():
        config[other] = config[one]
    if family == "t5":
        config["d_kv"] = size.hidden_size // size.num_heads
        config["decoder_start_token_id"] = 0
    if family == OLD:  # one table, no memory: a plain stack, whose arithmetic both do alike
        config |= {"d_embed": size.hidden_size, "d_head": size.hidden_size // size.num_heads, "cutoffs": []}
        config |= {"div_val": 1, "mem_len": 0, "same_length": False, "adaptive": False}
        config |= {"dropout": 0.0, "dropatt": 0.0}
    return config


def write_family(folder: Path, family: str, size: Size) -> Callable[[], None]:
    """mode: FAMILY. Write its checkpoint with fresh weights, by transformers in its own format."""
    import torch
    import transformers

    quiet_transformers()
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**config_of(family, size))
    auto: Any = transformers.AutoModelForCausalLM
    if family in WHOLE:
        auto = transformers.AutoModelForSeq2SeqLM
    elif family in _MASKED:
        auto = transformers.AutoModelForMaskedLM
    model = auto.from_config(config)
    return lambda: model.save_pretrained(folder)


def texts(size: Size, family: str) -> tuple[Any, Any]:
    """Ids and mask [B, L], rows of a quarter of the length up to all of it (seed 0); without padding for
    Transformer-XL, which knows no mask as published."""
    import torch

    generator = torch.Generator().manual_seed(0)
    length = 4 * size.length
    lengths = torch.randint(length // 4, length + 1, (size.batch,), generator=generator)
    lengths[0] = length
    if family == OLD:
        lengths.fill_(length)
    ids = torch.randint(3, size.source_vocabulary, (size.batch, length), generator=generator)
    return ids, torch.arange(length)[None, :] < lengths[:, None]


def s2s_family(folder: Path, mode: str, size: Size) -> Callable[[], Any]:
    """mode: FAMILY TASK. Encode a padded batch, or take a training step, with s2s."""
    import torch

    from seq2seq_cli.checkpoint.bundle import load_bundle

    family, task = mode.split()
    ids, mask = texts(size, family)
    if task == "encode":
        encoder = load_bundle(str(folder), role="encoder").model

        @torch.inference_mode()
        def encode() -> float:
            return float((encoder(ids, mask) * mask[..., None]).abs().sum())

        return encode
    from seq2seq_cli.recipe.sections import TrainingSection
    from seq2seq_cli.training.module import TrainingModule
    from seq2seq_cli.training.optimizer import make_optimizer, split_parts

    role: Any = None if family in WHOLE else role_of(family, task)
    model = load_bundle(str(folder), role=role).model
    for parameter in model.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "num_heads"):
            module.dropout = 0.0
    training = TrainingSection(learning_rate=5e-5)
    loss_of = TrainingModule(model)
    optimizer = make_optimizer(split_parts(model, training), training)
    target = ids[:, : size.length].contiguous()
    source = ids if family in WHOLE else None

    def step() -> None:
        everything = torch.ones_like(target, dtype=torch.bool)
        loss = loss_of(source, mask if source is not None else None, target, everything, target)
        (loss / target.numel()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def transformers_family(folder: Path, mode: str, size: Size) -> Callable[[], Any]:
    """mode: FAMILY TASK. The same with transformers."""
    import torch
    import transformers

    family, task = mode.split()
    quiet_transformers()
    ids, mask = texts(size, family)
    if task == "encode":
        encoder: Any = transformers.AutoModel.from_pretrained(folder).eval()
        encoder = encoder.encoder if family in WHOLE else encoder
        given = {"input_ids": ids} | ({} if family == OLD else {"attention_mask": mask.long()})

        @torch.inference_mode()
        def encode() -> float:
            states = encoder(**given)[0]
            return float((states * mask[..., None]).abs().sum())

        return encode
    config: Any = transformers.AutoConfig.from_pretrained(folder)
    for key in vars(config):
        if key.endswith(("dropout", "pdrop", "dropout_prob", "dropout_rate", "resid_pdrop")):
            setattr(config, key, 0.0)
    auto: Any = transformers.AutoModelForCausalLM
    if family in WHOLE:
        auto = transformers.AutoModelForSeq2SeqLM
    elif family in _MASKED:
        auto = transformers.AutoModelForMaskedLM
    else:
        config.is_decoder = True
    model = auto.from_pretrained(folder, config=config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.0, fused=True)
    target = ids[:, : size.length].contiguous()
    inputs = {"input_ids": target, "labels": target}
    if family in WHOLE:
        inputs = {"input_ids": ids, "attention_mask": mask.long(), "labels": target}

    def step() -> None:
        output = model(**inputs)
        loss = output.losses.mean() if family == OLD else output.loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def family_rows(
    folder: Path,
    size: Size,
    *,
    families: Sequence[str] = FAMILIES,
    peer: str,
    old_python: str | None,
    pairs: int,
    threads: int,
    limits: dict[str, float],
) -> Iterator[Row]:
    """Two rows a family, seconds of encoding a padded batch and of a training step. ``old_python``: the
    interpreter that has transformers 4.30.2, for the family that needs it."""
    for family in families:
        place = folder.parent / family
        python = (family == OLD and old_python) or sys.executable
        made: dict[str, Any] = {"folder": place, "size": size, "threads": threads, "python": python}
        with Worker(peer, "write", family, **made) as writer:
            writer.measure()
        for task in ("encode", "train"):
            both = beside(
                *("family", f"{family} {task}", place, size),
                peer=peer,
                peer_python=python,
                pairs=pairs,
                threads=threads,
            )
            same = ""
            if task == "encode":
                same = f"states differ by {abs(both.made[0] - both.made[1]) / both.made[1]:.0e}"
            yield Row(
                name=f"{family} {task}",
                unit="ms",
                s2s=1000 * median(both.left),
                peer=1000 * median(both.right),
                peer_name=peer,
                speedup=speedup(both.left, both.right),
                cpu_speedup=both.cpu_speedup,
                wanted=1.0,
                s2s_mb=both.peaks[0],
                peer_mb=both.peaks[1],
                wanted_memory=WANTED_MEMORY,
                same=same,
            )
