"""GPT (Radford et al. 2018): post-norm causal stack with learned positions and a tied head.

Its cross-attention, which was never published, has the names of GPT-2's and its own norm behind the sum.
"""

from __future__ import annotations

from seq2seq_cli.families import conv1d
from seq2seq_cli.families.family import Config, Family, Role, head_size, is_causal, refuse_unless
from seq2seq_cli.model import EmbeddingConfig, HeadConfig, StackConfig

OPTIONS = {
    "vocab_size": 40478,
    "n_positions": 512,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "afn": "gelu",
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "layer_norm_epsilon": 1e-5,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "cross_attention_hidden_size": None,
    "bidirectional": False,  # ours: lift the causal mask when the stack is an encoder
}

#: the published names for activations, and what they compute: gelu is the tanh form here
_ACTIVATIONS = {"gelu": "gelu_new", "relu": "relu", "silu": "silu", "swish": "silu"}


def _stack_config(config: Config, role: Role) -> StackConfig:
    refuse_unless(config, "afn", _ACTIVATIONS)
    return StackConfig(
        vocab_size=config["vocab_size"],
        hidden_size=config["n_embd"],
        num_layers=config["n_layer"],
        num_heads=config["n_head"],
        head_size=head_size(config, "n_embd", "n_head"),
        feedforward_size=4 * config["n_embd"],
        max_positions=config["n_positions"],
        embedding=EmbeddingConfig(dropout=config["embd_pdrop"]),
        activation=_ACTIVATIONS[config["afn"]],
        norm_order="post",
        norm_eps=config["layer_norm_epsilon"],
        causal=is_causal(config, role, family="GPT"),
        cross_attention=role == "cross_decoder",
        cross_attention_size=config["cross_attention_hidden_size"],
        head=None if role == "encoder" else HeadConfig(tied=config["tie_word_embeddings"]),
        dropout=config["resid_pdrop"],
        attention_dropout=config["attn_pdrop"],
        init_std=config["initializer_range"],
    )


FAMILY = Family(
    name="openai-gpt",
    options=OPTIONS,
    stack_config=_stack_config,
    body_prefix="transformer.",
    keys=(
        ("tokens_embed.weight", "embedding.weight"),
        ("positions_embed.weight", "position_embedding.weight"),
        *conv1d.layer_keys(),
    ),
    head_keys=(("lm_head.weight", "head.weight"),),
    aliases=conv1d.ALIASES,
    ignored=(*conv1d.IGNORED, "position_ids"),
    tied=("lm_head.weight",),
    unpack=conv1d.unpack,
    pack=conv1d.pack,
    lacks_special_tokens=True,
    tokenizer="bpe",
    architectures={
        "encoder": "OpenAIGPTModel",
        "decoder": "OpenAIGPTLMHeadModel",
        "cross_decoder": "OpenAIGPTLMHeadModel",
    },
)
