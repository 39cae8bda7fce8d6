"""The model layer: stacks of transformer layers, and two of them joined. It knows no family by name."""

from seq2seq_cli.model.cache import KVCache
from seq2seq_cli.model.config import EncoderDecoderConfig, Share, SpecialIds, StackConfig
from seq2seq_cli.model.encoder_decoder import EncoderDecoder
from seq2seq_cli.model.stack import Encoded, Stack

__all__ = [
    "Encoded",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "KVCache",
    "Share",
    "SpecialIds",
    "Stack",
    "StackConfig",
]
