"""The families that s2s knows, by the ``model_type`` of their config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seq2seq_cli.errors import CheckpointError, nearest
from seq2seq_cli.families import (
    albert,
    bart,
    bert,
    camembert,
    ctrl,
    distilbert,
    electra,
    gpt2,
    mt5,
    openai_gpt,
    roberta,
    t5,
    transfo_xl,
    xlm,
    xlm_roberta,
    xlnet,
)
from seq2seq_cli.families.family import Family, Role

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        albert.FAMILY,
        bart.FAMILY,
        bert.FAMILY,
        camembert.FAMILY,
        ctrl.FAMILY,
        distilbert.FAMILY,
        electra.FAMILY,
        gpt2.FAMILY,
        mt5.FAMILY,
        openai_gpt.FAMILY,
        roberta.FAMILY,
        t5.FAMILY,
        transfo_xl.FAMILY,
        xlm.FAMILY,
        xlm_roberta.FAMILY,
        xlnet.FAMILY,
    )
}


def family_of(config: Mapping[str, Any], *, where: str = "") -> Family:
    """The family of a config.json; CheckpointError for one that we do not have."""
    name = config.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        what = f"model_type {name!r} is not supported" if name else "config.json has no model_type"
        raise CheckpointError(what, where=where, remedy=nearest(str(name), FAMILIES))
    return FAMILIES[name]


__all__ = ["FAMILIES", "Family", "Role", "family_of"]
