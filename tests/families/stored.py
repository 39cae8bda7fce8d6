"""References that scripts/make_references.py made with an old published implementation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

FOLDER = Path(__file__).parent / "references"


def configs(family: str) -> dict[str, dict[str, Any]]:
    """Case -> its config.json."""
    return {
        folder.name: json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for folder in sorted((FOLDER / family).iterdir())
    }


def outputs(family: str, case: str) -> dict[str, Tensor]:
    """``ids.N``, and ROLE.N or pieces.N for them."""
    return load_file(FOLDER / family / case / "outputs.safetensors")


def publish(config: Mapping[str, Any], case: str, role: str, folder: Path) -> Callable[[list[int]], Tensor]:
    """Copy the checkpoint of a case (its body alone for an encoder) and give back what it computes for the
    stored texts."""
    family = config["model_type"]
    source = FOLDER / family / (case or "base")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "config.json", folder)
    weights = load_file(source / "model.safetensors")
    if role == "encoder":
        prefix = "transformer." if family == "transfo-xl" else f"{family}."
        weights = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    known = outputs(family, source.name)
    numbers = {tuple(t.tolist()): name.partition(".")[2] for name, t in known.items() if name[:4] == "ids."}
    return lambda row: known[f"{role}.{numbers[tuple(row)]}"]
