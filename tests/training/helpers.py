"""Recipes and data of tiny runs: everything hidden 32."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import subprocess
import sys
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

ROOT = Path(__file__).resolve().parents[2]
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


#: 32 rows for one step: the first 16 are short but for two, which all are padded to, the others long
THIRTY_TWO = [
    *(10, 23, 30, 8, 9, 14, 16, 20, 22, 24, 28, 7, 19, 21, 27, 29),
    *(31, 0, 1, 4, 26, 2, 3, 5, 6, 11, 12, 13, 15, 17, 18, 25),
]


def start_ranks(job: str, folder: Path, *, count: int = 2, **more: str) -> list[str]:
    """Do ``job`` of ``tests.training.ranks`` in ``count`` processes; what each of them said."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COV_", "S2S_"))}
    fixed = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
    fixed |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    fixed |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCH_CPP_LOG_LEVEL": "ERROR"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.ranks", job, str(folder)],
            cwd=folder,
            env={**kept, **fixed, **more, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        said = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * count, "\n".join(said)
    return said


def same_files(one: Path, other: Path) -> None:
    """Every tensor file of a checkpoint is that of another, byte for byte (SHA-256)."""

    def digests(folder: Path) -> dict[str, str]:
        files = sorted(folder.rglob("*.safetensors"))
        return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    assert len(digests(one)) > 1
    assert digests(one) == digests(other)
