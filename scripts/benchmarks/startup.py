"""W3: how long a command takes from start to end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TRANSFORMERS = """
import sys
from transformers import AutoTokenizer, EncoderDecoderModel
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = EncoderDecoderModel.from_pretrained(sys.argv[1])
batch = tokenizer([sys.argv[2]], return_tensors="pt")
ids = model.generate(batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=8)
print(tokenizer.decode(ids[0], skip_special_tokens=True))
"""
_LINE = "show all customers"


@dataclass(frozen=True, kw_only=True)
class Start:
    """A command of s2s beside another one (``named``); nothing that does the same can be quicker than
    ``least``."""

    name: str
    command: list[str]
    named: str
    other: list[str]
    least: list[str]


def commands(folder: Path) -> list[Start]:
    """What is started; ``folder`` holds a tiny model."""
    s2s = str(Path(sys.executable).with_name("s2s"))
    python = [sys.executable, "-c"]
    nothing, torch = [*python, "pass"], [*python, "import torch"]
    transformers = [str(Path(sys.executable).with_name("transformers")), "--help"]
    same = [*python, _TRANSFORMERS, str(folder), _LINE]
    generate = [s2s, "generate", "-q", "-m", str(folder), "--max-new-tokens", "8", _LINE]
    rows = [
        ("s2s --help", [s2s, "--help"], "transformers --help", transformers, nothing),
        ("s2s recipes ls", [s2s, "recipes", "ls"], "import torch", torch, nothing),
        ("s2s generate, one line, of torch alone", generate, "import torch", torch, torch),
        ("s2s generate, one line", generate, "the same with transformers", same, torch),
    ]
    return [
        Start(name=name, command=command, named=named, other=other, least=least)
        for name, command, named, other, least in rows
    ]


def seconds_of(command: Sequence[str]) -> float:
    """Wall-clock seconds of one run. RuntimeError, with the command's last words, when it fails."""
    begun = time.perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    spent = time.perf_counter() - begun
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} failed ({done.returncode}):\n{done.stderr.strip()}")
    return spent
