"""What training keeps in memory, and that saving it changes no bit of what is learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seq2seq_cli.errors import UsageError
from seq2seq_cli.model import losses
from seq2seq_cli.recipe import Recipe
from seq2seq_cli.training.run import finetune
from tests.training.helpers import BERT, GPT2, ONE_SIDED
from tests.training.test_train_loop import gradients, trainer_of

Make = Callable[..., Recipe]


@contextmanager
def kept() -> Iterator[list[int]]:
    """Bytes of every tensor that is kept for the way back."""
    sizes: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.nbytes)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


ALBERT_SIDE = "{hidden_size: 32, embedding_size: 16, num_hidden_layers: 2, num_attention_heads: 2,"
ALBERT = ALBERT_SIDE + " intermediate_size: 32}"


@pytest.mark.parametrize(
    ("objective", "side", "family", "config"),
    [
        ("causal_lm", "decoder", "gpt2", GPT2),
        ("masked_lm", "encoder", "bert", BERT),
        ("masked_lm", "encoder", "albert", ALBERT),
        ("causal_lm", "decoder", "xlnet", "{d_model: 32, n_layer: 2, n_head: 2, d_inner: 32}"),
        ("seq2seq", "", "", ""),
    ],
)
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_gradient_checkpointing_changes_no_bit(
    recipe: Make,
    monkeypatch: pytest.MonkeyPatch,
    objective: str,
    side: str,
    family: str,
    config: str,
    precision: str,
) -> None:
    text = ONE_SIDED.format(objective=objective, side=side, family=family, config=config) if side else None
    asked = ("training.dropout=0.3", f"training.mixed_precision={precision}")

    def found(*more: str) -> tuple[dict[str, torch.Tensor], int]:
        made = recipe(*asked, *more, **({"text": text} if text else {}))
        trainer = trainer_of(made)
        with kept() as sizes:
            return gradients(trainer, [[0, 1, 2], [3, 4]], monkeypatch), sum(sizes)

    plain, most = found()
    again, less = found("training.gradient_checkpointing=true")
    assert {name for name, value in plain.items() if value is not None}
    for name, gradient in plain.items():
        assert (gradient is None) == (again[name] is None), name
        assert gradient is None or torch.equal(gradient, again[name]), name
    assert less < 0.6 * most


class Largest(TorchDispatchMode):
    """The most numbers that any result of a computation had."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.numbers = max(self.numbers, leaf.numel())
        return result


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_logits_of_a_whole_batch_exist(smoothing: float, dtype: torch.dtype) -> None:
    """1,024 places of a vocabulary of 50,257 would be 51 million numbers."""
    vocabulary, places = 50_257, 1_024
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(vocabulary, 4, generator=draw).requires_grad_()
    states = torch.randn(places, 4, generator=draw).to(dtype).requires_grad_()
    labels = torch.randint(vocabulary, (places,), generator=draw)
    losses._buffers.clear()
    with Largest() as seen:
        losses.label_loss(states, weight, None, labels, smoothing=smoothing).backward()
    assert seen.numbers <= losses._CHUNK_ELEMENTS < vocabulary * places / 3.9


def test_torch_compile_serves_steps_and_nothing_else(
    recipe: Make, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def translate(module: torch.nn.Module, *, dynamic: bool) -> Callable[..., torch.Tensor]:
        assert dynamic

        def translated(*arguments: torch.Tensor) -> torch.Tensor:
            calls.append(module.training)
            return module(*arguments)

        return translated

    monkeypatch.setattr(torch, "compile", translate)
    results = finetune(recipe("training.torch_compile=true", "training.max_steps=3"))
    assert calls == [True] * 3
    assert results["validation_loss"] > 0


def test_torch_compile_without_a_compiler_is_refused(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UsageError, match=r"C\+\+ compiler") as error:
        trainer_of(recipe("training.torch_compile=true"))
    assert "torch_compile: false" in str(error.value)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")  # torch warns of its own ways while it translates
def test_what_torch_compile_makes_learns_the_same(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = gradients(trainer_of(recipe("training.dropout=0")), [[0, 1, 2]], monkeypatch)
    made = trainer_of(recipe("training.dropout=0", "training.torch_compile=true"))
    translated = gradients(made, [[0, 1, 2]], monkeypatch)
    for name, gradient in plain.items():
        if gradient is not None:
            torch.testing.assert_close(translated[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
