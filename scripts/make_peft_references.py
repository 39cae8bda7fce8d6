#!/usr/bin/env python3
"""Store adapters that PEFT wrote, with the outputs of its models, under tests/checkpoint/adapters.

    python -m venv ENV && ENV/bin/pip install torch==2.13.0 transformers peft==0.21.2
    PYTHONPATH=. ENV/bin/python scripts/make_peft_references.py

Every case is a folder: the two files that PEFT writes, and expected.safetensors with inputs and the logits of
its model. The models underneath are tests/checkpoint/peft_cases.py's. That PEFT reads what s2s writes is
tested in the same environment: python -m pytest tests/checkpoint/test_adapter.py.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

from tests.checkpoint.peft_cases import CASES, FOLDER, base, inputs

torch.set_num_threads(1)


def scramble(model: Any) -> None:
    """Values that show: PEFT starts updates at zero, and what it trains whole at the model's own."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
                print("  learns:", name, tuple(parameter.shape))


def make(case: str) -> None:
    model = get_peft_model(base(case), LoraConfig(**CASES[case])).eval()
    print(case)
    scramble(model)
    given = inputs(case)
    with torch.no_grad():
        logits = model(**given).logits
    folder = FOLDER / case
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    save_file({**given, "logits": logits.contiguous()}, folder / "expected.safetensors")


if __name__ == "__main__":
    for name in CASES:
        make(name)
