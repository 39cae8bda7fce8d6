"""The model and the inputs that both programs get, in a folder that both can read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: pad is neither start nor eos: transformers would hide every target token that equals it
IDS = {"decoder_start_token_id": 0, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
#: words that the tokenizer of the start-up model is trained on
_LINES = ("show all customers", "list the orders of a customer", "count products by department")


@dataclass(frozen=True, kw_only=True)
class Size:
    """A BERT → GPT-2 pair with fresh weights, and how much work is done with it (lengths in tokens)."""

    hidden_size: int = 384
    num_layers: int = 6
    num_heads: int = 12
    source_vocabulary: int = 30_522
    target_vocabulary: int = 50_257
    sources: int = 64
    shortest: int = 8
    longest: int = 48
    source_positions: int = 512
    new_tokens: int = 32
    single_new_tokens: int = 64
    batch: int = 16
    length: int = 32  #: of targets
    source_length: int = 32
    steps: int = 2  #: training steps a measurement
    pairs: int = 4000  #: of texts in an epoch

    @property
    def decoder_layer_weights(self) -> int:
        """Matrix entries of one decoder layer: self-attention, cross-attention, feed-forward."""
        return (4 + 4 + 8) * self.hidden_size**2

    @property
    def token_weights(self) -> int:
        """Matrix entries that one new token is multiplied with; the source's keys and values are not."""
        per_layer = self.decoder_layer_weights - 2 * self.hidden_size**2
        return self.num_layers * per_layer + self.head_weights

    @property
    def head_weights(self) -> int:
        """Entries of the vocabulary matrix."""
        return self.hidden_size * self.target_vocabulary

    @property
    def encoder_weights(self) -> int:
        """Matrix entries that a source token is multiplied with, without the cross-attention's."""
        return self.num_layers * 12 * self.hidden_size**2


def step_work(size: Size) -> float:
    """Floating-point operations of a step: two for each weight and token that meet, two for each pair of
    states in attention and value of their width, twice (scores and values); backward as much again, twice."""
    width, source, target = size.hidden_size, size.source_length, size.length
    crossed = size.num_layers * 2 * width**2  # keys and values of the source
    products = source * (size.encoder_weights + crossed) + target * size.token_weights
    seen = source * source + target * (target + 1) / 2 + target * source
    return 3 * size.batch * (2 * products + 4 * size.num_layers * seen * width)


FULL = Size()
#: shows that everything runs; its figures mean nothing
QUICK = Size(
    hidden_size=64,
    num_layers=2,
    num_heads=4,
    source_vocabulary=500,
    target_vocabulary=1000,
    sources=8,
    new_tokens=8,
    single_new_tokens=8,
    batch=4,
    length=16,
    source_length=16,
    steps=1,
    pairs=24,
)

#: what is asked of generation beside the exact number of tokens; s2s and transformers know these names
DECODING: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {
        "do_sample": True,
        "top_k": 50,
        "top_p": 0.9,
        "temperature": 0.8,
        "repetition_penalty": 1.2,
    },
    "beam4": {"num_beams": 4},
    "single": {},
}
#: modes of decoding beside each peer: a strategy, and the precision of the weights where it is not float32.
#: transformers has no eight bits of its own on a CPU and stays in float32
MODES: dict[str, tuple[str, ...]] = {
    "transformers": (*DECODING, "greedy-int8", "single-int8"),
    "ctranslate2": ("greedy", "beam4", "single", "greedy-int8", "beam4-int8", "single-int8"),
}


def parts_of(mode: str) -> tuple[str, str]:
    """ "beam4-int8" -> ("beam4", "int8"), "beam4" -> ("beam4", "float32")."""
    strategy, _, precision = mode.partition("-")
    return strategy, precision or "float32"


def asked(strategy: str, size: Size) -> dict[str, Any]:
    """The options of a strategy (or of beamN), with an exact number of new tokens, whatever the random
    weights prefer."""
    count = size.single_new_tokens if strategy == "single" else size.new_tokens
    options = DECODING[strategy] if strategy in DECODING else {"num_beams": int(strategy[len("beam") :])}
    return {**options, "max_new_tokens": count, "min_new_tokens": count}


def pair_configs(size: Size) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json keys of both sides, but for their vocabularies."""
    encoder: dict[str, Any] = {
        "hidden_size": size.hidden_size,
        "num_hidden_layers": size.num_layers,
        "num_attention_heads": size.num_heads,
        "intermediate_size": 4 * size.hidden_size,
        "max_position_embeddings": size.source_positions,
    }
    decoder: dict[str, Any] = {
        "n_embd": size.hidden_size,
        "n_layer": size.num_layers,
        "n_head": size.num_heads,
    }
    return encoder, decoder


def write_pair(folder: Path, size: Size, *, tokenizer: bool = False) -> None:
    """Write the pair with fresh weights (seed 0); with a tokenizer for the command line, on request."""
    from seq2seq_cli.checkpoint.saving import save_bundle
    from seq2seq_cli.combiner import Side, combine

    made = None
    encoder, decoder = pair_configs(size)
    if tokenizer:
        from seq2seq_cli.text.training import train_tokenizer

        made = train_tokenizer("bpe", size.target_vocabulary, _LINES)
    else:
        encoder["vocab_size"], decoder["vocab_size"] = size.source_vocabulary, size.target_vocabulary
    pair = combine(
        Side(family="bert", config=encoder, tokenizer=made),
        Side(family="gpt2", config=decoder, tokenizer=made),
        settings=IDS,
    )
    save_bundle(pair, folder, overwrite=True)


def write_bart(folder: Path, size: Size) -> None:
    """Write a BART of the pair's sizes, one vocabulary for both sides, with fresh weights (seed 0).

    They are drawn wider than usual: at 0.02 every text would be the start token again and again, and
    programs that write the same would prove nothing.
    """
    from dataclasses import replace

    from seq2seq_cli.checkpoint.saving import save_bundle
    from seq2seq_cli.combiner import Side, combine

    sides = {
        f"{side}_{key}": value
        for side in ("encoder", "decoder")
        for key, value in {
            "layers": size.num_layers,
            "attention_heads": size.num_heads,
            "ffn_dim": 4 * size.hidden_size,
        }.items()
    }
    config = {
        "vocab_size": size.target_vocabulary,
        "d_model": size.hidden_size,
        "max_position_embeddings": size.source_positions,
        "init_std": 0.1,
        **sides,
    }
    side = Side(family="bart", config=config)
    pair = combine(side, side, settings=IDS, share="embeddings")
    # not the default: at the last of N tokens an end would be forced
    whole = {"model_type": "bart", **config, **IDS, "forced_eos_token_id": None}
    save_bundle(replace(pair, config=whole), folder, overwrite=True)


def quiet_transformers() -> None:
    """Let transformers say neither what it loads nor how far it is."""
    import transformers

    quiet: Any = transformers.logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()


def sources(size: Size, *, one: bool) -> tuple[Any, Any]:
    """Source ids and mask [B, S], padded on the right (seed 0); ``one`` gives the first only, unpadded."""
    import torch

    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(size.shortest, size.longest + 1, (size.sources,), generator=generator)
    ids = torch.randint(3, size.source_vocabulary, (size.sources, int(lengths.max())), generator=generator)
    mask = torch.arange(ids.shape[1])[None, :] < lengths[:, None]
    if one:
        length = int(lengths[0])
        return ids[:1, :length], mask[:1, :length].long()
    return ids.masked_fill(~mask, 2), mask.long()


def training_batches(size: Size, count: int = 8) -> list[tuple[Any, Any]]:
    """(source ids, target ids) [B, L] without padding, the same for both programs (seed 1)."""
    import torch

    generator = torch.Generator().manual_seed(1)
    shapes = (size.batch, size.source_length), (size.batch, size.length)
    return [
        (
            torch.randint(3, size.source_vocabulary, shapes[0], generator=generator),
            torch.randint(3, size.target_vocabulary, shapes[1], generator=generator),
        )
        for _ in range(count)
    ]


def as_arguments(size: Size) -> dict[str, int]:
    """``size`` as plain numbers, to be sent to another process."""
    return asdict(size)
