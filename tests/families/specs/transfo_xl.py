"""Transformer-XL under test, against stored numbers: today's transformers does not have it."""

from seq2seq_cli.families.transfo_xl import FAMILY
from tests.families import stored
from tests.families.spec import Spec

CONFIGS = stored.configs("transfo-xl")
BASE = CONFIGS.pop("base")
KEYS = {"model_type", *FAMILY.options}

SPEC = Spec(
    base={key: value for key, value in BASE.items() if key in KEYS},
    roles=("encoder", "decoder"),
    cases=CONFIGS,
    stored=("", *CONFIGS),
    remembering=tuple(
        case for case, config in CONFIGS.items() if config["mem_len"] and not config["same_length"]
    ),
)
