"""Which matrices of a model get low-rank updates in a run, and what stands still beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import TYPE_CHECKING

import torch
from torch import nn

from seq2seq_cli.checkpoint.adapter import adaptable
from seq2seq_cli.checkpoint.bundle import AdapterNotes, Bundle
from seq2seq_cli.errors import UsageError, nearest
from seq2seq_cli.model import EncoderDecoder
from seq2seq_cli.model.lora import LEAVES, LoraSettings, adapt
from seq2seq_cli.training.optimizer import part_name

if TYPE_CHECKING:
    from seq2seq_cli.recipe.sections import ModelSection


def add_updates(bundle: Bundle, section: ModelSection, *, fresh: Collection[str], where: str) -> set[str]:
    """Give the bundle's model the updates that ``section.lora`` asks for; the names of the parameters that
    stand still from now on. What is ``fresh`` learns as a whole, in every part.

    UsageError when nothing that was loaded is there to be updated, and for sides that share all they have:
    their updates would part them.
    """
    lora = section.lora
    assert lora is not None
    model = bundle.model
    if isinstance(model, EncoderDecoder) and model.config.share == "all":
        raise UsageError("the two sides share their matrices, and lora would part them", where=where)
    places = adaptable(bundle)
    parts = set(lora.parts) - set(section.freeze)
    chosen = []
    for name, modules in places.items():
        weights = [f"{module}.weight" for module in modules]
        is_loaded = set(fresh).isdisjoint(weights)
        if (
            is_loaded
            and part_name(model, weights[0]) in parts
            and _is_target(name, modules[0], lora.target_modules)
        ):
            chosen.append(modules)
    if not chosen:
        leaves = sorted({name.rpartition(".")[2] for name in places})
        remedy = f"its matrices are called {', '.join(leaves)}" if lora.target_modules else ""
        for target in lora.target_modules or ():
            remedy = nearest(target, leaves) or remedy
        what = "lora finds no loaded matrix in the parts and modules that it names"
        raise UsageError(what, where=where, remedy=remedy)
    settings = LoraSettings(r=lora.r, alpha=lora.alpha, dropout=lora.dropout, use_rslora=lora.use_rslora)
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    generator = torch.Generator().manual_seed(section.seed)
    for modules in chosen:
        adapt(model, modules, settings, generator=generator)
    bundle.adapter = AdapterNotes(settings=settings, whole=frozenset(names & set(fresh)))
    return names - set(fresh)


def _is_target(name: str, module: str, targets: Collection[str] | None) -> bool:
    """As PEFT: a published name or its end; without any, all matrices of the layers."""
    if targets is None:
        return "layers" in module.split(".")
    return any(name == target or name.endswith(f".{target}") for target in targets)


def is_update(name: str) -> bool:
    """Whether a parameter's name is that of an update."""
    return name.endswith(LEAVES)


def digest(model: nn.Module, names: Collection[str]) -> str:
    """SHA-256 of the parameters ``names``: updates mean nothing beside other ones."""
    found = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if name in names:
            found.update(name.encode())
            found.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
