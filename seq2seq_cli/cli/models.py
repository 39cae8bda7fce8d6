"""``s2s models``: families, aliases, and what each can be."""

from __future__ import annotations

import json
from typing import Any

from seq2seq_cli.cli.options import AsJson, new_app

app = new_app()
_ROLES = {
    "encoder": "encoder",
    "cross_decoder": "decoder",
    "decoder": "language model",
    "masked_lm": "masked language model",
}


@app.command()
def models(as_json: AsJson = False) -> None:
    """List families and aliases, and what each can be.

    Lengths are those of the family's usual base checkpoint, in tokens.
    """
    from seq2seq_cli.checkpoint.references import PACKAGED

    table = describe()
    if as_json:
        print(json.dumps(table, indent=2))
        return
    rows = [("family", "base checkpoint", "longest", "tokenizer", "can be")]
    rows += [
        (row["family"], row["checkpoint"], str(row["longest"]), row["tokenizer"], ", ".join(row["roles"]))
        for row in table["families"]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False)) + "  " + row[4])
    print("\nother aliases (a star: its family cannot be loaded yet):")
    for alias, checkpoint in table["aliases"].items():
        star = "" if alias in PACKAGED else " *"
        print(f"  {alias:<12}{checkpoint}{star}")


def describe() -> dict[str, Any]:
    """The families that can be loaded, and every alias with the checkpoint that it stands for."""
    from seq2seq_cli.checkpoint.loading import stack_config
    from seq2seq_cli.checkpoint.references import ALIASES
    from seq2seq_cli.families import FAMILIES

    families = [
        {
            "family": name,
            "checkpoint": ALIASES.get(name, ""),
            "longest": stack_config(family, {}, "encoder", where=name).max_positions,
            "tokenizer": family.tokenizer,
            "roles": [text for role, text in _ROLES.items() if role in family.architectures],
        }
        for name, family in FAMILIES.items()
    ]
    others = {alias: checkpoint for alias, checkpoint in ALIASES.items() if alias not in FAMILIES}
    return {"families": families, "aliases": others}
