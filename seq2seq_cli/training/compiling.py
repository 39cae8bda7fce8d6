"""The loss translated into machine code by torch.compile, where the machine has a compiler."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from seq2seq_cli.errors import UsageError
from seq2seq_cli.recipe import where_of

if TYPE_CHECKING:
    from seq2seq_cli.recipe import Recipe


def stepping(module: nn.Module, recipe: Recipe) -> Any:
    """What a training step calls for ``module``: itself, or with torch_compile its translation, for batches
    of any size. Evaluation and generation go on without. UsageError where nothing can translate."""
    if not recipe.training.torch_compile:
        return module
    missing = missing_compiler()
    if missing:
        raise UsageError(
            f"torch_compile needs {missing}",
            where=where_of(recipe, "training.torch_compile"),
            remedy="install it, or write torch_compile: false",
        )
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)  # it tells where it leaves code untranslated
    return torch.compile(module, dynamic=True)


def missing_compiler() -> str:
    """What torch's compiler lacks on this machine; "" when nothing."""
    if torch.cuda.is_available():
        return "" if importlib.util.find_spec("triton") else "the package triton"
    found = any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))
    return "" if found else "a C++ compiler (g++ or clang++)"
