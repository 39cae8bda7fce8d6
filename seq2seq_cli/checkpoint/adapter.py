"""LoRA adapters in PEFT's file format: adapter_config.json and adapter_model.safetensors.

A matrix is called what it is called in the published model; where that has several of ours as one (GPT-2's
query, key and value), they have one ``lora_A``, and their ``lora_B`` lie one below the other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seq2seq_cli import console
from seq2seq_cli.checkpoint.bundle import ADAPTER, Bundle, load_bundle
from seq2seq_cli.checkpoint.files import read_config, read_json, read_tensors
from seq2seq_cli.checkpoint.halves import is_encoder_decoder, is_single_stack
from seq2seq_cli.checkpoint.naming import published, translated
from seq2seq_cli.checkpoint.references import resolve
from seq2seq_cli.errors import CheckpointError, Finding
from seq2seq_cli.families import family_of
from seq2seq_cli.families.translate import published_name
from seq2seq_cli.model.linear import Linear
from seq2seq_cli.model.lora import AdaptedLinear, LoraSettings, adapt

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
#: settings of PEFT that make another model of the same tensors; what each must be
_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (False, None),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "use_qalora": (False, None),
    "use_bdlora": (False, None),
    "alora_invocation_tokens": (None,),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "layer_replication": (None,),
}
_SHOWN = 5


def adaptable(bundle: Bundle) -> dict[str, tuple[str, ...]]:
    """Published name of each matrix that may get an update -> our modules in it, in the order of its rows.

    Those are all but tables, heads and what the published model has not as a module (XLNet's attention).
    """
    probes: dict[str, Tensor] = {}
    names: list[str] = []
    for name, module in bundle.model.named_modules():
        inside = name.split(".")
        if not isinstance(module, Linear) or not {"head", "embedding"}.isdisjoint(inside[:-1]):
            continue
        if _is_module(bundle, name):
            # one column of the module's number: what is joined, turned or renamed can be followed
            probes[f"{name}.weight"] = torch.full((module.out_features, 1), len(names), dtype=torch.int32)
            names.append(name)
    return {
        theirs.removesuffix(".weight"): tuple(names[i] for i in dict.fromkeys(probe.flatten().tolist()))
        for theirs, probe in published(bundle, probes).items()
    }


def _is_module(bundle: Bundle, name: str) -> bool:
    if name.startswith("projection"):
        return True
    side, _, inside = name.partition(".")
    config = bundle.config
    if side in ("encoder", "decoder"):
        config = config.get(side, config)
    elif side != "stack":
        inside = name
    return published_name(family_of(config), f"{inside}.weight").endswith(".weight")


def write_adapter(bundle: Bundle, folder: Path) -> None:
    """Write the bundle's updates, and what it holds whole, into a new ``folder`` that PEFT reads."""
    from safetensors.torch import save_file

    assert bundle.adapter is not None
    folder.mkdir()
    tensors: dict[str, Tensor] = {}
    targets = []
    for name, modules in adaptable(bundle).items():
        adapted = [bundle.model.get_submodule(each) for each in modules]
        updates = [module for module in adapted if isinstance(module, AdaptedLinear)]
        if updates:
            targets.append(name)
            tensors[f"{name}{_A}"] = updates[0].lora_a.detach().contiguous()
            tensors[f"{name}{_B}"] = torch.cat([module.lora_b.detach() for module in updates])
    own = dict(bundle.model.named_parameters(remove_duplicate=False))
    whole = published(bundle, {name: own[name].detach() for name in bundle.adapter.whole if name in own})
    tensors |= {name: tensor.contiguous().clone() for name, tensor in whole.items()}
    save_file({_PREFIX + name: t for name, t in tensors.items()}, folder / WEIGHTS_FILE, {"format": "pt"})
    settings = bundle.adapter.settings
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": bundle.reference or None,
        "r": settings.r,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "use_rslora": settings.use_rslora,
        "target_modules": sorted(targets),
        "modules_to_save": sorted({name.rpartition(".")[0] for name in whole}) or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    text = json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What an adapter did: ``updated`` matrices by their published names, parameters ``replaced`` by ours."""

    updated: tuple[str, ...]
    replaced: tuple[str, ...]


def load_base(reference: str) -> Bundle:
    """What an adapter belongs to, in the role that its folder says it was saved in."""
    config = read_config(resolve(reference).folder)
    if is_encoder_decoder(config) or is_single_stack(config):
        return load_bundle(reference)
    named = config.get("architectures")
    roles = family_of(config).architectures.items()
    role = next((role for role, name in roles if isinstance(named, list) and name in named), None)
    return load_bundle(reference, role=role if role in ("encoder", "masked_lm") else None)


def apply_adapter(bundle: Bundle, folder: Path) -> Applied:
    """Give the bundle's model the updates of an adapter, and the parameters that the adapter holds whole;
    what is saved from then on has them in it. CheckpointError, with every finding, for what is damaged, fits
    nothing, or is no plain LoRA."""
    if not folder.is_dir():
        raise CheckpointError("no such folder", where=str(folder), remedy="name a folder with an adapter")
    config = read_json(folder, CONFIG_FILE)
    if config is None:
        inside = folder / ADAPTER
        remedy = f"did you mean {inside}?" if inside.is_dir() else "name a folder that PEFT wrote"
        raise CheckpointError(f"no {CONFIG_FILE}", where=str(folder), remedy=remedy)
    _check_config(config, str(folder / CONFIG_FILE))
    base = config.get("base_model_name_or_path")
    if base and bundle.reference and base != bundle.reference:  # it may be the same by another name
        console.warn(f"{folder} says that it was made for {base}, and is worked into {bundle.reference}")
    where = str(folder / WEIGHTS_FILE)
    tensors = {n.removeprefix(_PREFIX): t.float() for n, t in read_tensors(folder, WEIGHTS_FILE).items()}
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise CheckpointError(f"{len(broken)} tensors hold NaN or infinity: {_listed(broken)}", where=where)
    places = adaptable(bundle)
    findings, updated = [], []
    for name in [name.removesuffix(_A) for name in tensors if name.endswith(_A)]:
        down, up = tensors.pop(name + _A), tensors.pop(name + _B, None)
        if up is None or name not in places:
            findings.append(Finding(f"{name}: " + ("no lora_B" if up is None else "no such matrix"), where))
        elif wrong := _misfit(bundle, places[name], down, up):
            findings.append(Finding(f"{name}: {wrong}", where))
        else:
            _update(bundle, places[name], down, up, _scale(config, name, len(down)))
            updated.append(name)
    replaced = _put(bundle, tensors, where, findings)
    if findings:
        rest = len(findings) - _SHOWN
        more = [Finding(f"and {rest} more", where, "is this the adapter's model?")] if rest > 0 else []
        raise CheckpointError(findings=[*findings[:_SHOWN], *more])
    was = bundle.report
    new = {name: size for name, size in was.fresh.items() if name in replaced}
    bundle.report = replace(was, loaded={**was.loaded, **new}, fresh={})
    if "s2s" in bundle.config:
        bundle.config["s2s"] = {**bundle.config["s2s"], "trained": True}
    return Applied(updated=tuple(updated), replaced=replaced)


def _check_config(config: Mapping[str, Any], where: str) -> None:
    findings = [
        Finding(f"{key}={config.get(key)!r} is not supported", where, f"plain LoRA has {plain[0]!r}")
        for key, plain in _PLAIN.items()
        if config.get(key, plain[0]) not in plain
    ]
    for key, kinds in (("r", int), ("lora_alpha", (int, float))):
        if not isinstance(config.get(key), kinds) or isinstance(config[key], bool) or config[key] <= 0:
            findings.append(Finding(f"{key}={config.get(key)!r} is not a sensible value", where))
    pattern = config.get("alpha_pattern") or {}
    if not isinstance(pattern, dict) or not all(isinstance(v, (int, float)) for v in pattern.values()):
        findings.append(Finding("alpha_pattern does not map names to numbers", where))
    elif any(set(name) & set("\\^$*+?()[]{}|") for name in pattern):
        findings.append(Finding("alpha_pattern with regular expressions is not supported", where))
    if findings:
        raise CheckpointError(findings=findings)


def _scale(config: Mapping[str, Any], name: str, rank: int) -> float:
    """As PEFT works it out; the rank is the tensor's own, whatever rank_pattern says."""
    pattern = config.get("alpha_pattern") or {}
    own = (alpha for key, alpha in pattern.items() if f".{name}".endswith(f".{key}"))
    alpha = next(own, config["lora_alpha"])
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _linears(bundle: Bundle, names: Collection[str]) -> list[Linear]:
    found = [bundle.model.get_submodule(name) for name in names]
    return [module for module in found if isinstance(module, Linear)]


def _misfit(bundle: Bundle, names: Collection[str], down: Tensor, up: Tensor) -> str:
    modules = _linears(bundle, names)
    rows, width = sum(module.out_features for module in modules), modules[0].in_features
    if down.ndim == 2 and down.shape[1] == width and up.shape == (rows, len(down)) and len(down):
        return ""
    shapes = f"{tuple(down.shape)} and {tuple(up.shape)}"
    return f"the update's shapes are {shapes}, the matrix is {(rows, width)}"


def _update(bundle: Bundle, names: tuple[str, ...], down: Tensor, up: Tensor, scale: float) -> None:
    made = adapt(bundle.model, names, LoraSettings(r=len(down), alpha=scale * len(down)))
    with torch.no_grad():
        made[0].lora_a.copy_(down)
        for module, rows in zip(made, torch.split(up, [m.out_features for m in made]), strict=True):
            module.lora_b.copy_(rows)


@torch.no_grad()
def _put(
    bundle: Bundle, tensors: Mapping[str, Tensor], where: str, findings: list[Finding]
) -> tuple[str, ...]:
    """Parameters that an adapter holds whole, in place of the model's; their names, and ``findings`` about
    what fits none."""
    found, unknown = translated(bundle, tensors)
    own = dict(bundle.model.named_parameters(remove_duplicate=False))
    findings += [Finding(f"{name}: no such parameter", where) for name in unknown]
    for name, tensor in found.items():
        if name not in own or own[name].shape != tensor.shape:
            findings.append(Finding(f"{name} {tuple(tensor.shape)}: no such parameter", where))
        else:
            own[name].copy_(tensor)
    left = sorted(bundle.report.fresh.keys() - found.keys())
    if left and not findings:
        what = f"{len(left)} fresh parameters of the model are not in the adapter: {_listed(left)}"
        findings.append(Finding(what, where, "name the model that it was trained on"))
    return tuple(found)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
