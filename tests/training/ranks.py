"""What one of several processes does in the tests: ``python -m tests.training.ranks JOB FOLDER``.

Every process writes what it found into FOLDER. A start of several processes costs seconds, so one start does
many things.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from seq2seq_cli.recipe import load_recipe
from seq2seq_cli.training.run import make_accelerator, start
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


JOBS: dict[str, Callable[[Path], None]] = {"gradient": gradient}

if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        JOBS[sys.argv[1]](Path(sys.argv[2]))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
