"""XLM (Lample and Conneau 2019): post-norm stack with positions and languages added to the tokens.

One stack was published as encoder, as masked and as causal language model; ``causal`` says which. A masked
one writes at a mask token behind the text, which it reads both ways. As a decoder it attends to the source
the way the authors' own translation models do, under their names.
"""

from __future__ import annotations

from seq2seq_cli.errors import CheckpointError, nearest
from seq2seq_cli.families.family import (
    Config,
    Family,
    Keys,
    Role,
    head_size,
    linear,
    refuse_unless,
    whole_number,
)
from seq2seq_cli.model import EmbeddingConfig, HeadConfig, OpenPlace, StackConfig

OPTIONS = {
    "vocab_size": 30145,
    "emb_dim": 2048,
    "n_layers": 12,
    "n_heads": 16,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "gelu_activation": True,
    "sinusoidal_embeddings": False,
    "causal": False,
    "asm": False,
    "n_langs": 1,
    "use_lang_emb": True,
    "lang2id": {},
    "language": None,  # ours: a name in lang2id, or an id; its vector is added to every token
    "lang_id": 0,  # the language that a masked model writes in where ``language`` names none
    "mask_token_id": 0,  # what a masked model writes at; the published code does not look at mask_index
    "max_position_embeddings": 512,
    "embed_init_std": 2048**-0.5,
    "layer_norm_eps": 1e-12,
    "init_std": 0.02,
    "is_encoder": True,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "cross_attention_hidden_size": None,
}
#: names that the published code takes for the same options, most of them from the authors' own files
_ALIASES = {
    "hidden_size": "emb_dim",
    "num_attention_heads": "n_heads",
    "num_hidden_layers": "n_layers",
    "n_words": "vocab_size",
    "bos_index": "bos_token_id",
    "eos_index": "eos_token_id",
    "pad_index": "pad_token_id",
}


def _languages(config: Config) -> int:
    return int(config["n_langs"]) if config["use_lang_emb"] and config["n_langs"] > 1 else 0


def _language(config: Config, languages: int, key: str = "language") -> int | None:
    """The row of the language table that is added to every token; None = none is."""
    language, known = config[key], config["lang2id"]
    if language is None:
        return None
    if not languages:
        raise CheckpointError(
            f"{key}={language!r}: this model has no language embeddings",
            remedy="they need use_lang_emb: true and n_langs above 1",
        )
    if isinstance(language, str):
        if language not in known:
            remedy = nearest(language, known) if known else "its lang2id is empty: give the language's id"
            raise CheckpointError(f"{key}={language!r} is not in lang2id", remedy=remedy)
        language = known[language]
    if not isinstance(language, int) or isinstance(language, bool) or not 0 <= language < languages:
        raise CheckpointError(
            f"{key}={config[key]!r} is none of the {languages} languages",
            remedy=f"an id from 0 to {languages - 1}, or a name in lang2id",
        )
    return language


def _stack_config(config: Config, role: Role) -> StackConfig:
    refuse_unless(config, "asm", [False])  # the adaptive softmax over the vocabulary
    decodes = role in ("decoder", "cross_decoder")
    if not decodes:
        refuse_unless(config, "is_encoder", [True])
    languages = _languages(config)
    return StackConfig(
        vocab_size=config["vocab_size"],
        hidden_size=config["emb_dim"],
        num_layers=config["n_layers"],
        num_heads=config["n_heads"],
        head_size=head_size(config, "emb_dim", "n_heads"),
        feedforward_size=4 * config["emb_dim"],
        max_positions=config["max_position_embeddings"],
        embedding=EmbeddingConfig(
            positions="fixed" if config["sinusoidal_embeddings"] else "learned",
            languages=languages,
            language=_language(config, languages),
            norm=True,
            dropout=config["dropout"],
            init_std=config["embed_init_std"],
        ),
        activation="gelu" if config["gelu_activation"] else "relu",
        norm_order="post",
        norm_eps=config["layer_norm_eps"],
        causal=decodes or config["causal"],
        cross_attention=role == "cross_decoder",
        cross_attention_size=config["cross_attention_hidden_size"],
        head=None if role == "encoder" else HeadConfig(bias=True, tied=config["tie_word_embeddings"]),
        dropout=config["dropout"],
        attention_dropout=config["attention_dropout"],
        init_std=config["init_std"],
    )


def _open_place(config: Config) -> OpenPlace | None:
    if config["causal"]:
        return None
    token = whole_number(config, "mask_token_id", least=0)
    if config["mask_token_id"] is None or token >= config["vocab_size"]:
        raise CheckpointError(
            f"mask_token_id={config['mask_token_id']!r} is not one of the {config['vocab_size']} tokens"
        )
    languages = _languages(config)
    language = _language(config, languages)
    if languages and language is None:
        language = _language(config, languages, "lang_id")
    return OpenPlace(token=token, language=language)


def _keys() -> Keys:
    ours = "layers.{layer}"
    keys: list[tuple[str, str]] = [
        ("embeddings.weight", "embedding.weight"),
        ("position_embeddings.weight", "position_embedding.weight"),
        ("lang_embeddings.weight", "language_embedding.weight"),
        *linear("layer_norm_emb", "embedding_norm"),
        *linear("layer_norm1.{layer}", f"{ours}.self_norm"),
        *linear("layer_norm15.{layer}", f"{ours}.cross_norm"),
        *linear("layer_norm2.{layer}", f"{ours}.feedforward_norm"),
        *linear("ffns.{layer}.lin1", f"{ours}.feedforward.inner"),
        *linear("ffns.{layer}.lin2", f"{ours}.feedforward.outer"),
    ]
    parts = (("q_lin", "query"), ("k_lin", "key"), ("v_lin", "value"), ("out_lin", "output"))
    for theirs, block in (("attentions", "self"), ("encoder_attn", "cross")):
        for part, our_part in parts:
            keys += linear(f"{theirs}.{{layer}}.{part}", f"{ours}.{block}_attention.{our_part}")
    return tuple(keys)


FAMILY = Family(
    name="xlm",
    options=OPTIONS,
    stack_config=_stack_config,
    body_prefix="transformer.",
    keys=_keys(),
    head_keys=linear("pred_layer.proj", "head"),
    aliases=_ALIASES,
    open_place=_open_place,
    role_settings={"decoder": {"causal": True}},  # the published code knows it from there alone
    ignored=("position_ids", r"sequence_summary\..*", r"qa_outputs\..*"),
    tied=("pred_layer.proj.weight",),
    tokenizer="moses bpe",
    architectures={
        "encoder": "XLMModel",
        "decoder": "XLMWithLMHeadModel",
        "cross_decoder": "XLMWithLMHeadModel",
        "masked_lm": "XLMWithLMHeadModel",
    },
)
