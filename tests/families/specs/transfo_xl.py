"""Transformer-XL under test, against stored numbers: today's transformers does not have it."""

from tests.families import stored
from tests.families.spec import Spec

CONFIGS = stored.configs("transfo-xl")
BASE = CONFIGS.pop("base")

SPEC = Spec(
    base=BASE,
    roles=("encoder", "decoder"),
    cases=CONFIGS,
    stored=("", *CONFIGS),
    remembering=tuple(
        case for case, config in CONFIGS.items() if config["mem_len"] and not config["same_length"]
    ),
)
