"""``s2s env``: what a bug report needs to say about the machine. Names no user, path or token."""

from __future__ import annotations

import json
from typing import Any

from seq2seq_cli.cli.options import AsJson, new_app
from seq2seq_cli.environment import describe

app = new_app()


@app.command()
def env(as_json: AsJson = False) -> None:
    """Show versions and devices, for bug reports."""
    facts = describe()
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    rows = [(name, _plain(value)) for name, value in facts.items()]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return "-" if value is None else str(value)
