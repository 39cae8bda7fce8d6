"""What a family's tests need to know: a tiny config, the options under test, how to run the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from tests import tiny
from tests.families import stored

#: ids of one text, alone and unpadded [L] -> the reference's states [L, D] or logits [L, V]
Run = Callable[[list[int]], Tensor]
Options = Mapping[str, Any]


def make_published(role: str, config: Options) -> Any:
    """transformers' model for a role, from a complete config with its model_type, weights not yet set."""
    settings = {key: value for key, value in config.items() if key != "model_type"}
    if role == "decoder":
        settings["is_decoder"] = True
    made = transformers.AutoConfig.for_model(config["model_type"], **settings)
    auto = {
        "encoder": transformers.AutoModel,
        "decoder": transformers.AutoModelForCausalLM,
        "masked_lm": transformers.AutoModelForMaskedLM,
    }[role]
    return auto.from_config(made)


def run_published(model: Any, role: str, ids: Tensor) -> Tensor:
    """ids [1, L] -> states or logits [1, L, ...]."""
    output: Tensor = model(input_ids=ids)[0]
    return output


def make_masked(role: str, config: Options) -> Any:
    """As ``make_published``, for families without a published decoder: their masked language model is one
    under a causal mask (``run_causally``)."""
    return make_published("masked_lm" if role == "decoder" else role, config)


def run_causally(model: Any, role: str, ids: Tensor) -> Tensor:
    """As ``run_published``, but a decoder is shown to each token without what follows it."""
    seen = None
    if role == "decoder":
        seen = torch.ones(1, 1, ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    output: Tensor = model(input_ids=ids, attention_mask=seen)[0]
    return output


#: what families call the hidden size
WIDTH_KEYS = ("hidden_size", "n_embd", "emb_dim", "dim", "d_model")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One family under test. ``base``: a tiny config.json (width 32, two layers, 60 tokens, bos 1, eos 2,
    pad 0 where it has one); ``cases``: changes to it, one for every option that changes the numbers.
    ``make`` and ``run`` replace the usual ways to build and call the reference. The reference of the cases
    named in ``stored`` is a folder of tests/families/references, of which "base" is the base and "narrow"
    the only other width."""

    base: Options
    cases: Mapping[str, Options] = field(default_factory=dict)
    roles: tuple[str, ...] = ("encoder", "decoder", "masked_lm")
    make: Callable[[str, Options], Any] = make_published
    run: Callable[[Any, str, Tensor], Tensor] = run_published
    spread: float = 0.3  #: of the reference's weights
    stored: tuple[str, ...] = ()
    #: cases in which the published memory makes a text read in pieces another thing than the whole text
    remembering: tuple[str, ...] = ()

    def config(self, case: str = "") -> dict[str, Any]:
        """The config of a case; "" is the base."""
        return {**self.base, **(self.cases[case] if case else {})}

    def model(self, role: str, *, seed: int = 0, **changes: Any) -> Any:
        """The reference with weights that show every part of it."""
        return tiny.scramble(self.make(role, {**self.base, **changes}), seed, self.spread)

    def publish(self, case: str, role: str, folder: Path, *, width: int | None = None) -> Run:
        """Write the checkpoint of a case into ``folder`` and give back how to run it. ``width``: another
        hidden size than the base's."""
        config = self.config(case)
        if case in self.stored:
            return stored.publish(config, "narrow" if width is not None else case, role, folder)
        if width is not None:
            config[next(key for key in WIDTH_KEYS if key in config)] = width
        model = tiny.scramble(self.make(role, config), std=self.spread)
        model.save_pretrained(folder)

        def run(row: list[int]) -> Tensor:
            with torch.no_grad():
                return self.run(model, role, torch.tensor([row]))[0]

        return run


def spec(family: str) -> Spec:
    """The spec of a family: tests/families/specs/FAMILY.py."""
    found: Spec = import_module(f"tests.families.specs.{family.replace('-', '_')}").SPEC
    return found
