"""Logits processors: small callables that forbid or reweigh next tokens, shared by all strategies."""

from seq2seq_cli.decoding.processors.chain import build_processors
from seq2seq_cli.decoding.processors.context import Context, Processor

__all__ = ["Context", "Processor", "build_processors"]
