"""The model layer: stacks of transformer layers, and two of them joined. It knows no family by name."""

from seq2seq_cli.model.cache import KVCache
from seq2seq_cli.model.config import (
    AdaptiveConfig,
    EmbeddingConfig,
    EncoderDecoderConfig,
    FinalNormConfig,
    HeadConfig,
    OpenPlace,
    RelativePositions,
    Share,
    SpecialIds,
    StackConfig,
)
from seq2seq_cli.model.encoder_decoder import EncoderDecoder
from seq2seq_cli.model.errors import InputError
from seq2seq_cli.model.head import Room
from seq2seq_cli.model.prefix import PrefixModel
from seq2seq_cli.model.stack import Encoded, Stack

#: what writes a target for a source
Seq2Seq = EncoderDecoder | PrefixModel

__all__ = [
    "AdaptiveConfig",
    "EmbeddingConfig",
    "Encoded",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "FinalNormConfig",
    "HeadConfig",
    "InputError",
    "KVCache",
    "OpenPlace",
    "PrefixModel",
    "RelativePositions",
    "Room",
    "Seq2Seq",
    "Share",
    "SpecialIds",
    "Stack",
    "StackConfig",
]
