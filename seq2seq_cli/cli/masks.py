"""``s2s models --masks``: who sees whom in the three kinds of stacks, as the model's own masks say."""

from __future__ import annotations

from typing import Any

_TEXT = ("who", "sells", "tea", "?")
_TARGET = ("SELECT", "name", "FROM", "shops")
#: name, what it says, the tokens, how many of them are a source, whether the stack is causal
_MASKS = (
    ("bidirectional", "every token sees every token (encoders: BERT, RoBERTa, ...)", _TEXT, 0, False),
    ("causal", "a token sees itself and those before it (decoders: GPT-2, CTRL, ...)", _TEXT, 0, True),
    (
        "prefix",
        "the source sees all of itself, the target the source and what was written (UniLM, --single-stack)",
        _TEXT + _TARGET,
        len(_TEXT),
        True,
    ),
)


def masks() -> list[dict[str, Any]]:
    """The three masks as matrices of 0 and 1: row = the token that looks, column = the one that is seen."""
    import torch

    from seq2seq_cli.model import StackConfig
    from seq2seq_cli.model.sight import sight

    found = []
    for name, what, tokens, prefix, causal in _MASKS:
        size = len(tokens)
        config = StackConfig(
            vocab_size=size,
            hidden_size=1,
            num_layers=1,
            num_heads=1,
            head_size=1,
            feedforward_size=1,
            max_positions=size,
            causal=causal,
        )
        # with a mask of its own a row gets its full picture; without, attention knows the two plain ones
        all_there = torch.ones(1, size, dtype=torch.bool)
        seen = sight(
            config, torch.arange(size)[None], all_there, None, prefix=prefix, dropout=torch.nn.Identity()
        )
        assert seen.mask is not None
        visible = seen.mask[0, 0].expand(size, size).int().tolist()
        found.append({"mask": name, "what": what, "tokens": list(tokens), "visible": visible})
    return found


def drawn(table: list[dict[str, Any]]) -> list[str]:
    """The pictures as lines, the same on a terminal as in a file."""
    from seq2seq_cli.pictures import blocks

    lines = ["row: the token that looks; column: the one that it sees"]
    for each in table:
        picture = blocks(each["visible"], each["tokens"], each["tokens"])
        lines += ["", f"{each['mask']}: {each['what']}", "", *("  " + line for line in picture)]
    return lines
