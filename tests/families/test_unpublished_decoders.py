"""GPT, CTRL and XLM as decoders with cross-attention, which transformers does not have: its own modules, put
together the way the family's blocks are, compute what ours compute, under the names that we give them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config
from transformers.models.ctrl.modeling_ctrl import MultiHeadAttention as CTRLAttention
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.models.xlm.modeling_xlm import MultiHeadAttention as XLMAttention

from seq2seq_cli.checkpoint.loading import build_stack, stack_config
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.model import Encoded
from tests import tiny
from tests.families.spec import spec

IDS = torch.tensor([[5, 6, 7, 8, 9], [15, 16, 17, 18, 19]])
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])  # of the source, as long as CTRL needs it
LENGTH = IDS.shape[1]
CAUSAL = torch.ones(LENGTH, LENGTH).tril().bool()
#: published module name -> module
Modules = dict[str, nn.Module]


def hidden(mask: Tensor) -> Tensor:
    """Numbers to add to scores."""
    return torch.zeros(mask.shape).masked_fill(~mask.bool(), -1e9)


def openai_gpt(model: Any, source: Tensor, crossing: Modules) -> Tensor:
    body = model.transformer
    x = body.tokens_embed(IDS) + body.positions_embed(torch.arange(LENGTH))
    for number, block in enumerate(body.h):
        config = GPT2Config(n_embd=32, n_head=4, attn_implementation="eager")
        cross = GPT2Attention(config, is_cross_attention=True)
        norm = nn.LayerNorm(32, eps=1e-5)
        crossing |= {f"h.{number}.crossattention": cross, f"h.{number}.ln_cross_attn": norm}
        tiny.scramble(nn.ModuleList([cross, norm]), number)
        x = block.ln_1(x + block.attn(x)[0])
        attended = cross(
            x, encoder_hidden_states=source, encoder_attention_mask=hidden(MASK)[:, None, None, :]
        )
        x = norm(x + attended[0])
        x = block.ln_2(x + block.mlp(x))
    return x


def ctrl(model: Any, source: Tensor, crossing: Modules) -> Tensor:
    body = model.transformer
    x = body.w(IDS) * 32**0.5 + body.pos_encoding[:LENGTH]
    for number, block in enumerate(body.h):
        cross, norm = CTRLAttention(model.config, number), nn.LayerNorm(32, eps=1e-6)
        crossing |= {f"h.{number}.multi_head_cross_attention": cross, f"h.{number}.layernorm_cross": norm}
        tiny.scramble(nn.ModuleList([cross, norm]), number)
        y = block.layernorm1(x)
        x = x + block.multi_head_attention(y, y, y, attention_mask=hidden(CAUSAL)[None, None])[0]
        y = norm(x)
        x = x + cross(source, source, y, attention_mask=hidden(MASK)[:, None, None, :])[0]
        x = x + block.ffn(block.layernorm2(x))
    normed: Tensor = body.layernorm(x)
    return normed


def xlm(model: Any, source: Tensor, crossing: Modules) -> Tensor:
    body = model.transformer
    x = body.layer_norm_emb(body.embeddings(IDS) + body.position_embeddings(torch.arange(LENGTH)))
    for number in range(2):
        cross, norm = XLMAttention(4, 32, model.config), nn.LayerNorm(32, eps=1e-12)
        crossing |= {f"encoder_attn.{number}": cross, f"layer_norm15.{number}": norm}
        tiny.scramble(nn.ModuleList([cross, norm]), number)
        x = body.layer_norm1[number](x + body.attentions[number](x, CAUSAL.expand(2, -1, -1))[0])
        x = norm(x + cross(x, MASK, kv=source)[0])
        x = body.layer_norm2[number](x + body.ffns[number](x))
    return x


HEADS = {"openai-gpt": "lm_head", "ctrl": "lm_head", "xlm": "pred_layer.proj"}


@pytest.mark.parametrize("states_of", [openai_gpt, ctrl, xlm], ids=lambda function: function.__name__)
def test_a_decoder_in_the_familys_own_style(states_of: Callable[[Any, Tensor, Modules], Tensor]) -> None:
    name = states_of.__name__.replace("_", "-")
    family, config = FAMILIES[name], spec(name).config()
    model = spec(name).model("decoder", attn_implementation="eager")
    source = torch.randn(2, LENGTH, 32, generator=torch.Generator().manual_seed(0))
    crossing: Modules = {}
    with torch.no_grad():
        expected = model.get_submodule(HEADS[name])(states_of(model, source, crossing))
    weights = {key: tensor for key, tensor in model.state_dict().items() if key not in family.tied}
    for path, module in crossing.items():
        weights |= {f"transformer.{path}.{key}": tensor for key, tensor in module.state_dict().items()}
    stack, report = build_stack(
        family, stack_config(family, config, "cross_decoder", where=""), weights, published=config, where=""
    )
    assert not report.fresh
    assert not report.unused
    with torch.no_grad():
        got = stack(IDS, encoded=Encoded(states=source, mask=MASK.bool()))
        blind = stack(IDS)
    assert tiny.relative_error(got, expected) < 1e-5
    assert tiny.relative_error(blind, expected) > 1e-2
