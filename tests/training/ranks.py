"""What one of several processes does in the tests: ``python -m tests.training.ranks JOB FOLDER``.

Every process writes what it found into FOLDER. A start of several processes costs seconds, so one start does
many things.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import nn
from torch.distributed.tensor import DTensor

from seq2seq_cli.recipe import load_recipe
from seq2seq_cli.training.run import finetune, make_accelerator, start
from seq2seq_cli.training.setup import prepare
from seq2seq_cli.training.signals import StopRequest
from tests.training.helpers import THIRTY_TWO


def gradient(folder: Path) -> None:
    """The gradient of one step over 32 rows, each process with a batch of 16."""
    recipe = load_recipe(Path("recipe.yaml"), ("training.dropout=0", "training.max_grad_norm=0"))
    accelerator = make_accelerator(recipe)
    trainer = start(
        prepare(recipe, processes=accelerator.num_processes), accelerator=accelerator, stop=StopRequest()
    )
    trainer.optimizer.step = lambda: None
    trainer.optimizer.zero_grad = lambda set_to_none: None
    trainer.step([THIRTY_TWO[:16], THIRTY_TWO[16:]])
    found = {
        name: p.grad for name, p in trainer.prepared.bundle.model.named_parameters() if p.grad is not None
    }
    save_file(found, folder / f"gradient-{accelerator.process_index}.safetensors")


def sharded(folder: Path) -> None:
    """Runs in slices, with the optimizer's state in one file and in slices; each is broken off after a step.
    And one that goes on where another number of processes left off."""
    recipe = load_recipe(Path("recipe.yaml"))
    accelerator = make_accelerator(recipe)
    trainer = start(prepare(recipe, processes=2), accelerator=accelerator, stop=StopRequest())
    gc.collect()
    whole = [p for p in gc.get_objects() if isinstance(p, nn.Parameter) and not isinstance(p, DTensor)]
    assert not whole, "nobody holds on to whole parameters"
    assert all(isinstance(p, DTensor) for p in trainer.names)
    parameters = trainer.prepared.bundle.model.parameters
    with trainer.whole():
        assert not any(isinstance(p, DTensor) for p in parameters()), "each process has all weights"
    assert all(isinstance(p, DTensor) for p in parameters()), "and only its slices again"
    del trainer, parameters
    Accelerator.end_training = lambda self: None  # it ends the group, and the next run needs it
    changes = ("training.dropout=0", "training.max_grad_norm=0.5")
    for kind in ("FULL_STATE_DICT", "SHARDED_STATE_DICT"):
        os.environ["FSDP_STATE_DICT_TYPE"] = kind
        output = (f"output=runs/{kind.lower()}", "training.gradient_checkpointing=true")
        finetune(load_recipe(Path("recipe.yaml"), (*changes, *output, "training.max_minutes=0.000001")))
    finetune(load_recipe(Path("recipe.yaml"), (*changes, "output=runs/one")))
    os.environ["FSDP_RESHARD_AFTER_FORWARD"] = "false"
    for precision in ("no", "bf16"):
        more = (f"output=runs/{precision}", f"training.mixed_precision={precision}")
        finetune(load_recipe(Path("recipe.yaml"), (*changes, *more)))


JOBS: dict[str, Callable[[Path], None]] = {"gradient": gradient, "sharded": sharded}

if __name__ == "__main__":
    torch.set_num_threads(1)
    JOBS[sys.argv[1]](Path(sys.argv[2]))
    os._exit(0)  # see seq2seq_cli.__main__.program
