"""Decoding: options, logits processors, one strategy a file, and the engine that batches texts."""

from seq2seq_cli.decoding.generate import generate_ids, run
from seq2seq_cli.decoding.options import Decoding, resolve_options
from seq2seq_cli.decoding.stepper import Hypothesis

__all__ = ["Decoding", "Hypothesis", "generate_ids", "resolve_options", "run"]
