"""The model layer: stacks of transformer layers, and two of them joined. It knows no family by name."""

from seq2seq_cli.model.cache import KVCache
from seq2seq_cli.model.config import (
    EmbeddingConfig,
    EncoderDecoderConfig,
    FinalNormConfig,
    HeadConfig,
    RelativePositions,
    Share,
    SpecialIds,
    StackConfig,
)
from seq2seq_cli.model.encoder_decoder import EncoderDecoder
from seq2seq_cli.model.stack import Encoded, Stack

__all__ = [
    "EmbeddingConfig",
    "Encoded",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "FinalNormConfig",
    "HeadConfig",
    "KVCache",
    "RelativePositions",
    "Share",
    "SpecialIds",
    "Stack",
    "StackConfig",
]
