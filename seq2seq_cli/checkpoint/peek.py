"""What a checkpoint reads and writes, without its weights."""

from __future__ import annotations

from seq2seq_cli.checkpoint.bundle import TARGET_TOKENIZER
from seq2seq_cli.checkpoint.files import read_config
from seq2seq_cli.checkpoint.halves import is_encoder_decoder, is_single_stack
from seq2seq_cli.checkpoint.references import resolve
from seq2seq_cli.text.tokenizer import Tokenizer


def peek(reference: str) -> tuple[bool, Tokenizer | None]:
    """Whether ``load_bundle`` makes of it a model that writes targets for sources, and the tokenizer of what
    it writes (None: the folder has none)."""
    folder = resolve(reference).folder
    config = read_config(folder)
    tokenizer = Tokenizer.from_folder(folder / TARGET_TOKENIZER) or Tokenizer.from_folder(folder)
    return is_encoder_decoder(config) or is_single_stack(config), tokenizer
