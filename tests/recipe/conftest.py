"""Recipes written for one test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

GOOD = """\
model:
  encoder: minilm
  decoder:
    family: gpt2
    config: {n_embd: 256, n_layer: 4, n_head: 8}
    tokenizer: {train: bpe, vocab_size: 1000}
data: {train: train.jsonl, validation: dev.jsonl, max_source_length: 64, max_target_length: 128}
training:
  objective: seq2seq
  num_train_epochs: 3
  tokens_per_batch: 4096
  learning_rate: 5e-4
  groups: {encoder: {learning_rate: 5e-5, freeze_steps: 200}}
generation: {num_beams: 4, max_new_tokens: 128}
output: runs/boss2sql
"""


@pytest.fixture
def good() -> str:
    return GOOD


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | bytes], Path]:
    """Write a recipe as ``r.yaml`` into the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes) -> Path:
        path = Path("r.yaml")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write
