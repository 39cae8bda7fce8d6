"""Writing a model folder in the published format, all or nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seq2seq_cli import __version__
from seq2seq_cli.checkpoint.adapter import write_adapter
from seq2seq_cli.checkpoint.bundle import ADAPTER, TARGET_TOKENIZER, Bundle
from seq2seq_cli.checkpoint.folder import stage_folder
from seq2seq_cli.checkpoint.halves import encoder_of_whole, to_whole, whole_of
from seq2seq_cli.checkpoint.loading import full_config
from seq2seq_cli.families import family_of
from seq2seq_cli.families.translate import to_published
from seq2seq_cli.model import EncoderDecoder, SpecialIds, Stack
from seq2seq_cli.model.lora import LEAVES, merged_weights

#: larger models are written in several files with an index
SHARD_BYTES = 5 * 1024**3


def save_bundle(bundle: Bundle, folder: Path, *, overwrite: bool = False) -> None:
    """Write ``bundle`` to ``folder``; UsageError when that exists, is not empty and may not be replaced."""
    with stage_folder(folder, overwrite=overwrite) as staged:
        write_model(bundle, staged)


def write_model(bundle: Bundle, folder: Path) -> None:
    """Write the model's files into an existing folder (see contract: config, weights, tokenizers, card). The
    weights have low-rank updates in them; the updates themselves are in ``adapter/`` as well."""
    write_weights(published_weights(bundle), folder)
    _write_json(folder / "config.json", saved_config(bundle))
    ids = id_settings(bundle.model.special_ids)
    _write_json(folder / "generation_config.json", {**bundle.model.generation, **ids})
    source, target = bundle.source_tokenizer, bundle.target_tokenizer
    if source is not None:
        source.save(folder)
    if target is not None and (source is None or source.fingerprint != target.fingerprint):
        (folder / TARGET_TOKENIZER).mkdir()
        target.save(folder / TARGET_TOKENIZER)
    (folder / "README.md").write_text(_card(bundle), encoding="utf-8")
    if bundle.adapter is not None:
        write_adapter(bundle, folder / ADAPTER)


def saved_config(bundle: Bundle) -> dict[str, Any]:
    """config.json as it fits the weights: their type, and the role in which a single stack was used, which
    need not be what the folder it came from says (half precision, a decoder made of a masked model)."""
    config = {key: value for key, value in bundle.config.items() if key != "torch_dtype"}
    config["dtype"] = str(next(bundle.model.parameters()).dtype).removeprefix("torch.")
    if (stack := bundle.single_stack) is not None:
        family = family_of(config)
        config["architectures"] = [family.architectures[bundle.role]]
        config |= {"is_decoder": bundle.role == "decoder", "add_cross_attention": False}
        if stack.open_place is None:
            config |= family.role_settings.get(bundle.role, {})
    elif (whole := whole_of(config)) is not None:
        config["architectures"] = [whole.architecture]
    return config


def id_settings(ids: SpecialIds) -> dict[str, Any]:
    """The special ids under their published names, those that are set."""
    eos = ids.eos[0] if len(ids.eos) == 1 else list(ids.eos) or None
    named = {
        "decoder_start_token_id": ids.start,
        "bos_token_id": ids.bos,
        "eos_token_id": eos,
        "pad_token_id": ids.pad,
    }
    return {key: value for key, value in named.items() if value is not None}


def published_weights(bundle: Bundle) -> dict[str, Tensor]:
    """Every tensor under its published name. Shared parameters appear on both sides, tied heads once."""
    model, stack = bundle.model, bundle.single_stack
    if stack is not None:
        weights = _published(stack, bundle.config, with_head=stack.head is not None)
        return encoder_of_whole(family_of(bundle.config), weights) if stack.head is None else weights
    assert isinstance(model, EncoderDecoder)
    if whole_of(bundle.config) is not None:
        return _whole(model, bundle.config)
    encoder = _published(model.encoder, bundle.config["encoder"], with_head=False)
    decoder = _published(model.decoder, bundle.config["decoder"], with_head=True)
    weights = {f"encoder.{name}": tensor for name, tensor in encoder.items()}
    weights |= {f"decoder.{name}": tensor for name, tensor in decoder.items()}
    if model.projection is not None:
        merged = merged_weights(model)
        weights |= {
            f"enc_to_dec_proj.{name}": merged.get(id(p), p.detach())
            for name, p in model.projection.named_parameters()
            if not name.endswith(LEAVES)
        }
    return weights


def _whole(model: EncoderDecoder, config: dict[str, Any]) -> dict[str, Tensor]:
    family = family_of(config)
    assert family.whole is not None
    encoder = _published(model.encoder, config, with_head=False)
    decoder = _published(model.decoder, config, with_head=True)
    weights = to_whole(family, encoder, decoder, one_table=model.config.share != "none")
    if not full_config(family, config)["tie_word_embeddings"]:
        # who believes that key looks for a head of its own even where ours is the table
        assert model.decoder.head is not None
        weights[family.whole.head] = dict(model.decoder.head.named_parameters())["weight"].detach()
    if family.whole.bias:
        bias = weights.get(family.whole.bias)
        rows = model.decoder.config.vocab_size
        weights[family.whole.bias] = torch.zeros(1, rows) if bias is None else bias[None]
    return weights


def _published(stack: Stack, config: dict[str, Any], *, with_head: bool) -> dict[str, Tensor]:
    merged = merged_weights(stack)
    ours = {
        name: merged.get(id(parameter), parameter.detach())
        for name, parameter in stack.named_parameters()
        if not name.endswith(LEAVES)
    }
    return to_published(
        family_of(config), ours, tied=stack.config.ties_head, with_head=with_head, config=config
    )


def write_weights(weights: dict[str, Tensor], folder: Path) -> None:
    """model.safetensors, or shards of at most ``SHARD_BYTES`` with their index."""
    from safetensors.torch import save_file

    shards: list[dict[str, Tensor]] = [{}]
    size, seen = 0, set()
    for name, tensor in weights.items():
        # the format refuses two names for one memory: shared parameters are written out twice
        if tensor.data_ptr() in seen:
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        tensor = tensor.contiguous()
        seen.add(tensor.data_ptr())
        if shards[-1] and size + tensor.nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    metadata = {"format": "pt"}

    def save(shard: dict[str, Tensor], file: str) -> None:
        save_file(shard, folder / file, metadata=metadata)
        (folder / file).chmod(0o666 & ~_umask())  # the library makes files that only their owner can read

    if len(shards) == 1:
        save(shards[0], "model.safetensors")
        return
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save(shard, file)
        where |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in weights.values())
    _write_json(
        folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where}
    )


def _umask() -> int:
    """What new files are not allowed; the system tells it only to those who set it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def _card(bundle: Bundle) -> str:
    """A short model card: what it is made of, whether it was trained, how to run it."""
    s2s = bundle.config.get("s2s", {})
    lines = ["---", "library_name: s2s", "tags: [s2s]", "---", ""]
    if isinstance(bundle.model, EncoderDecoder):
        sides = [bundle.config.get(side, bundle.config) for side in ("encoder", "decoder")]
        names = " → ".join(dict.fromkeys(str(side["model_type"]) for side in sides))
        lines += [f"# {names}", "", "An encoder-decoder model, made with s2s " + __version__ + ".", ""]
        lines += [f"- {side}: {s2s[side]}" for side in ("encoder", "decoder") if side in s2s]
    else:
        lines += [f"# {bundle.config['model_type']}", "", f"A single stack, made with s2s {__version__}.", ""]
    lines += [f"- shared parameters: {s2s['share']}"] if s2s.get("share", "none") != "none" else []
    lines += ["- fine-tuned: " + ("yes" if bundle.is_trained else "no, fresh parameters are random"), ""]
    lines += ["```sh", "echo 'a line of text' | s2s generate -m FOLDER", "```", ""]
    return "\n".join(lines)
