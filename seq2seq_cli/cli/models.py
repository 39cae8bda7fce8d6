"""``s2s models``: families, aliases, what each can be, and the names of their parameters."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from seq2seq_cli.cli.masks import drawn, masks
from seq2seq_cli.cli.options import AsJson, new_app
from seq2seq_cli.errors import UsageError

app = new_app()
_ROLES = {
    "encoder": "encoder",
    "cross_decoder": "decoder",
    "decoder": "language model",
    "masked_lm": "masked language model",
}
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@app.command()
def models(
    keys: Annotated[
        str | None,
        typer.Option("--keys", metavar="FAMILY", help="Print the names of this family's parameters instead."),
    ] = None,
    show_masks: Annotated[
        bool, typer.Option("--masks", help="Draw who sees whom in an encoder, a decoder and one for both.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List families and aliases, and what each can be.

    Source and target: the longest that the family's usual base checkpoint takes and writes, in tokens.
    """
    table: Any
    if show_masks:
        if keys is not None:
            raise UsageError("two tables are asked for", where="--masks --keys", remedy="leave one out")
        table = masks()
        lines = drawn(table)
    elif keys is not None:
        table = parameter_names(keys)
        lines = _columns([("side", "name", "shape", "what")], table, ("side", "name", "shape", "what"))
    else:
        table = describe()
        header = ("family", "alias", "source", "target", "tokenizer", "can be")
        rows = [{**row, "roles": ", ".join(row["roles"])} for row in table["families"]]
        lines = _columns(
            [header], rows, ("family", "alias", "longest_source", "longest_target", "tokenizer", "roles")
        )
        lines += ["", "aliases:"]
        lines += [f"  {alias:<12}{checkpoint}" for alias, checkpoint in table["aliases"].items()]
    print(json.dumps(table, indent=2) if as_json else "\n".join(lines))


def _columns(
    header: list[tuple[str, ...]], table: Sequence[dict[str, Any]], keys: Sequence[str]
) -> list[str]:
    """Rows as lines with aligned columns."""
    rows = header + [tuple(str(row[key]) for key in keys) for row in table]
    widths = [max(len(row[column]) for row in rows) for column in range(len(keys))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def describe() -> dict[str, Any]:
    """The families that can be loaded, and every alias with the checkpoint that it stands for."""
    from seq2seq_cli.checkpoint.loading import stack_config
    from seq2seq_cli.checkpoint.references import ALIASES, FAMILY_ALIASES
    from seq2seq_cli.families import FAMILIES

    families = [
        {
            "family": name,
            "alias": FAMILY_ALIASES.get(name, ""),
            "longest_source": stack_config(family, family.base, "encoder", where=name).max_positions,
            "longest_target": stack_config(family, family.base, "cross_decoder", where=name).max_positions,
            "tokenizer": family.tokenizer,
            "roles": [text for role, text in _ROLES.items() if role in family.architectures]
            + ["encoder-decoder"] * (family.whole is not None),
        }
        for name, family in FAMILIES.items()
    ]
    return {"families": families, "aliases": dict(ALIASES)}


def parameter_names(name: str) -> list[dict[str, Any]]:
    """What a pair's folder calls the parameters of a family on either side, with the shapes of its base size.

    ``{layer}`` stands for a number that runs over equal layers. What is cross-attention has the names that
    the family was published with, or, where it never had any, names in its own style.
    """
    import torch

    from seq2seq_cli.checkpoint.loading import stack_config
    from seq2seq_cli.families import family_named
    from seq2seq_cli.families.translate import to_published
    from seq2seq_cli.model import Stack

    family = family_named(name)
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for role in ("encoder", "decoder", "cross_decoder"):
        config = stack_config(family, {}, role, where=name)
        with torch.device("meta"):
            stack = Stack(config)
        ours = {key: parameter.detach() for key, parameter in stack.named_parameters()}
        named = to_published(family, ours, tied=config.ties_head, with_head=role != "encoder")
        shapes[role] = _merged({key: tuple(tensor.shape) for key, tensor in named.items()})
    table = []
    for side, role in (("encoder", "encoder"), ("decoder", "cross_decoder")):
        for key, shape in shapes[role].items():
            crossing = role == "cross_decoder" and key not in shapes["decoder"]
            what = "cross-attention" if crossing else ""
            table.append({"side": side, "name": f"{side}.{key}", "shape": list(shape), "what": what})
    return table


def _merged(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names that differ in their first number only, and not in shape, as one."""
    groups: dict[str, list[str]] = {}
    for name in shapes:
        groups.setdefault(_NUMBER.sub("{layer}", name, count=1), []).append(name)
    merged = {}
    for template, names in groups.items():
        if len(names) > 1 and len({shapes[name] for name in names}) == 1:
            merged[template] = shapes[names[0]]
        else:
            merged |= {name: shapes[name] for name in names}
    return merged
