"""CTRL (Keskar et al. 2019): pre-norm causal stack with scaled embeddings and computed positions.

Its cross-attention, which was never published, is its self-attention over the source, in the same style.
"""

from __future__ import annotations

import math

from seq2seq_cli.families import conv1d
from seq2seq_cli.families.family import Config, Family, Keys, Role, head_size, is_causal, linear
from seq2seq_cli.model import EmbeddingConfig, FinalNormConfig, HeadConfig, StackConfig

OPTIONS = {
    "vocab_size": 246534,
    "n_positions": 256,
    "n_embd": 1280,
    "dff": 8192,
    "n_layer": 48,
    "n_head": 16,
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "layer_norm_epsilon": 1e-6,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "cross_attention_hidden_size": None,
    "bidirectional": False,  # ours: lift the causal mask when the stack is an encoder
}

#: what the texts of its training began with, one each (Keskar et al. 2019)
CONTROL_CODES = (
    "Alone", "Ask", "Ass", "Atheism", "Books", "Christianity", "Computing", "Confession", "Confessions",
    "Conspiracy", "Diet", "Event", "Explain", "Extract", "Feminism", "Finance", "Fitness", "Funny",
    "Gaming", "Horror", "Human", "India", "Joke", "Joker", "Learned", "Legal", "Links", "Movies",
    "multilingual", "Narcissus", "Netflix", "News", "Norman", "Notion", "Opinion", "Politics", "Pregnancy",
    "Questions", "Relationship", "Relationships", "Retail", "Reviews", "Running", "Saving", "Scary",
    "Science", "Support", "Technologies", "Teenage", "Thoughts", "Tip", "Translation", "Weight",
    "Wikipedia", "Writing",
)  # fmt: skip


def _stack_config(config: Config, role: Role) -> StackConfig:
    return StackConfig(
        vocab_size=config["vocab_size"],
        hidden_size=config["n_embd"],
        num_layers=config["n_layer"],
        num_heads=config["n_head"],
        head_size=head_size(config, "n_embd", "n_head"),
        feedforward_size=config["dff"],
        max_positions=config["n_positions"],
        embedding=EmbeddingConfig(
            scale=math.sqrt(config["n_embd"]), positions="sinusoidal", dropout=config["embd_pdrop"]
        ),
        activation="relu",
        norm_order="pre",
        norm_eps=1e-6,  # of the layers, whatever layer_norm_epsilon says
        final_norm=FinalNormConfig(eps=config["layer_norm_epsilon"]),
        causal=is_causal(config, role, family="CTRL"),
        cross_attention=role == "cross_decoder",
        cross_attention_size=config["cross_attention_hidden_size"],
        head=None if role == "encoder" else HeadConfig(bias=True, tied=config["tie_word_embeddings"]),
        dropout=config["resid_pdrop"],  # there is none on attention: the published code passes 0
        init_std=config["initializer_range"],
    )


def _keys() -> Keys:
    published, ours = "h.{layer}", "layers.{layer}"
    keys: list[tuple[str, str]] = [
        ("w.weight", "embedding.weight"),
        *linear(f"{published}.layernorm1", f"{ours}.self_norm"),
        *linear(f"{published}.layernorm_cross", f"{ours}.cross_norm"),
        *linear(f"{published}.layernorm2", f"{ours}.feedforward_norm"),
        *linear(f"{published}.ffn.0", f"{ours}.feedforward.inner"),
        *linear(f"{published}.ffn.2", f"{ours}.feedforward.outer"),
        *linear("layernorm", "final_norm"),
    ]
    parts = (("Wq", "query"), ("Wk", "key"), ("Wv", "value"), ("dense", "output"))
    for theirs, block in (("multi_head_attention", "self"), ("multi_head_cross_attention", "cross")):
        for part, our_part in parts:
            keys += linear(f"{published}.{theirs}.{part}", f"{ours}.{block}_attention.{our_part}")
    return tuple(keys)


FAMILY = Family(
    name="ctrl",
    options=OPTIONS,
    stack_config=_stack_config,
    body_prefix="transformer.",
    keys=_keys(),
    head_keys=linear("lm_head", "head"),
    aliases=conv1d.ALIASES,
    ignored=("pos_encoding", r"classifier\.weight"),
    tied=("lm_head.weight",),
    lacks_special_tokens=True,
    tokenizer="@@ bpe",
    control_codes=CONTROL_CODES,
    architectures={
        "encoder": "CTRLModel",
        "decoder": "CTRLLMHeadModel",
        "cross_decoder": "CTRLLMHeadModel",
    },
)
