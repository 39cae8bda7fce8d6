"""Recipes and data of tiny runs: everything hidden 32."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

RECIPE = """
model:
  encoder:
    family: bert
    config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32,
             max_position_embeddings: 24}
    tokenizer: {train: wordpiece, vocab_size: 60}
  decoder:
    family: gpt2
    config: {n_embd: 32, n_layer: 1, n_head: 2, n_positions: 24}
    tokenizer: {train: wordpiece, vocab_size: 60}
data: {train: train.jsonl, validation: dev.jsonl}
training: {num_train_epochs: 2, tokens_per_batch: 96, learning_rate: 3e-3, logging_steps: 2, eval_samples: 4}
output: runs/tiny
"""

ONE_SIDED = """
model:
  {side}:
    family: {family}
    config: {config}
    tokenizer: {{train: wordpiece, vocab_size: 60}}
data: {{train: text.txt, validation: text.txt}}
training: {{objective: {objective}, num_train_epochs: 20, tokens_per_batch: 128, learning_rate: 5e-3,
            eval_steps: 10}}
output: runs/one
"""
BERT = "{hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32}"
GPT2 = "{n_embd: 32, n_layer: 1, n_head: 2, n_positions: 24}"

WORDS = ("red", "green", "blue", "cat", "dog", "bird", "sun", "moon")


def write_data(folder: Path, *, rows: int = 48) -> None:
    """Reversed words, as JSONL with a validation file, and plain lines of the same words."""
    draw = random.Random(0)
    texts = [[draw.choice(WORDS) for _ in range(draw.randint(1, 5))] for _ in range(rows + 8)]
    lines = [json.dumps({"source": " ".join(t), "target": " ".join(reversed(t))}) + "\n" for t in texts]
    (folder / "train.jsonl").write_text("".join(lines[:rows]))
    (folder / "dev.jsonl").write_text("".join(lines[rows:]))
    (folder / "text.txt").write_text("".join(" ".join(text) + "\n" for text in texts))


def log_of(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's train_log.jsonl."""
    return [json.loads(line) for line in (run / "train_log.jsonl").read_text().split("\n") if line]
