"""A small pair with trained tokenizers, combined once, and the program as a subprocess."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

TEXTS = ["who sells tea", "how many people work here", "list all the orders of may", "tea and cake"]
Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="session")
def pair_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT → GPT-2, tiny, never fine-tuned, with a tokenizer on each side."""
    from seq2seq_cli.checkpoint.saving import save_bundle
    from seq2seq_cli.combiner import Side, combine
    from seq2seq_cli.text.training import train_tokenizer

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    encoder = Side(
        family="bert",
        config={**sizes, "max_position_embeddings": 24},
        tokenizer=train_tokenizer("wordpiece", 80, TEXTS),
    )
    decoder = Side(
        family="gpt2",
        config={"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 40},
        tokenizer=train_tokenizer("bpe", 270, TEXTS),
    )
    folder = tmp_path_factory.mktemp("models") / "pair"
    save_bundle(combine(encoder, decoder, seed=3), folder)
    return folder


@pytest.fixture(scope="session")
def stack_folder(pair_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 language model alone, with its tokenizer."""
    from seq2seq_cli.checkpoint.bundle import load_bundle
    from seq2seq_cli.checkpoint.saving import save_bundle

    bundle = load_bundle(str(pair_folder), role="decoder")
    bundle.config = {k: v for k, v in bundle.config.items() if k not in ("is_decoder", "add_cross_attention")}
    folder = tmp_path_factory.mktemp("models") / "stack"
    save_bundle(bundle, folder)
    return folder


@pytest.fixture
def s2s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the program in an empty folder, in this process (a start of torch each time would take minutes).

    stdin is bytes, nothing unless given; stdout and stderr are what stood on file descriptors of their own.
    """
    from seq2seq_cli.__main__ import main

    def run(*arguments: object, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
        words = [str(argument) for argument in arguments]
        with (
            monkeypatch.context() as patch,
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            given.write(stdin)
            given.seek(0)
            patch.chdir(tmp_path)
            for name, value in environment.items():
                patch.setenv(name, value)
            terminal = os.dup(0)
            os.dup2(given.fileno(), 0)
            patch.setattr(sys, "stdin", open(0, closefd=False))  # noqa: SIM115
            patch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="utf-8", write_through=True))
            patch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding="utf-8", write_through=True))
            try:
                code = main(words)
            finally:
                os.dup2(terminal, 0)
                os.close(terminal)
            out.seek(0)
            err.seek(0)
            done = subprocess.CompletedProcess(words, code, out.read(), err.read())
            sys.stdout.detach()  # type: ignore[attr-defined]
            sys.stderr.detach()  # type: ignore[attr-defined]
            return done

    return run
