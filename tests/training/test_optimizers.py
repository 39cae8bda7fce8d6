"""Optimizers step by step against transformers', and what of them survives a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from seq2seq_cli.errors import CheckpointError, UsageError
from seq2seq_cli.recipe import Recipe
from seq2seq_cli.training import optimizer as optim
from seq2seq_cli.training.adafactor import Adafactor
from seq2seq_cli.training.optimizer_state import restore
from seq2seq_cli.training.run import finetune
from seq2seq_cli.training.schedules import learning_rate
from seq2seq_cli.training.setup import prepare
from tests.training.helpers import same_files

Make = Callable[..., Recipe]
FULL = {"scale_parameter": True, "clip_threshold": 0.7, "decay_rate": -0.7, "beta1": 0.9, "weight_decay": 0.1}


def parameters() -> list[torch.nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    shapes = [(7, 5), (6,), (1, 1, 4), (3, 2, 4), (4, 1)]
    return [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("settings", [{}, FULL], ids=["plain", "full"])
def test_adafactor_is_transformers(settings: dict[str, Any], relative: bool) -> None:
    ours, theirs = parameters(), parameters()
    left = Adafactor(ours, lr=3e-3, **settings)
    settings = {"scale_parameter": False, **settings}
    rate = None if relative else 3e-3
    right = transformers.Adafactor(theirs, lr=rate, relative_step=relative, **settings)
    draw = torch.Generator().manual_seed(1)
    for step in range(25):
        for one, other in zip(ours, theirs, strict=True):
            gradient = torch.randn(one.shape, generator=draw) * 10 ** (step % 3 - 1)
            one.grad, other.grad = gradient, gradient.clone()
        if relative:
            left.param_groups[0]["lr"] = learning_rate("relative_step", 1e-2, step, warmup=0, total=25)
        left.step()
        right.step()
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_adafactor_keeps_a_row_and_a_column_of_a_matrix(recipe: Make) -> None:
    made = recipe("training.optim=adafactor", "training.weight_decay=0.1")
    parts = prepare(made).parts
    optimizer = optim.make_optimizer(parts, made.training)
    for part in parts.parts:
        for _, parameter in part.parameters:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    sizes = {
        name: sum(value.numel() for key, value in optimizer.state[parameter].items() if key != "step")
        for part in parts.parts
        for name, parameter in part.parameters
    }
    assert sizes["encoder.layers.0.self_attention.query.weight"] == 32 + 32
    assert sizes["encoder.layers.0.self_attention.query.bias"] == 32
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.1}


@pytest.mark.parametrize(
    "settings",
    [
        [
            "optim=adafactor",
            "adafactor={beta1: 0.9, scale_parameter: true}",
            "lr_scheduler_type=relative_step",
        ],
        ["optim=adamw_torch", "groups.encoder.freeze_after=4", "groups.decoder.freeze_steps=2"],
    ],
    ids=["adafactor", "parts that start late and end early"],
)
def test_a_resumed_run_is_equal_to_the_bit(recipe: Make, settings: list[str]) -> None:
    changes = ["training.max_steps=6", "training.save_steps=3", *(f"training.{each}" for each in settings)]
    finetune(recipe(*changes))
    finetune(recipe(*changes, "output=runs/again"), resume="runs/tiny/checkpoint-3")
    same_files(Path("runs/tiny/checkpoint-6"), Path("runs/again/checkpoint-6"))


def test_plain_and_fused_adamw_make_the_same_steps(recipe: Make) -> None:
    losses = [
        finetune(recipe("training.max_steps=4", f"training.optim={name}", f"output=runs/{name}"))[
            "train_loss"
        ]
        for name in ("adamw_torch", "adamw_torch_fused")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_state_that_fits_no_parameter_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    parameter = torch.nn.Parameter(torch.zeros(3, 2))
    optimizer = torch.optim.AdamW([parameter])
    for name, tensor in {
        "w.row": torch.zeros(2),
        "v.exp_avg": torch.zeros(3, 2),
        "w.x": torch.zeros(3, 2),
    }.items():
        save_file({name: tensor}, tmp_path / "state.safetensors")
        with pytest.raises(CheckpointError, match=f"'{name}' fits no parameter"):
            restore(tmp_path / "state.safetensors", optimizer, {parameter: "w"})


@pytest.mark.parametrize("name", optim.EIGHT_BITS)
def test_eight_bits_without_their_package_are_refused_by_name(
    recipe: Make, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optim, "find_spec", lambda package: None)
    with pytest.raises(
        UsageError, match=r"bitsandbytes · --set training.optim=.* · pip install 's2s\[8bit\]'"
    ):
        prepare(recipe(f"training.optim={name}"))


@pytest.mark.filterwarnings("ignore")  # the package's own, about kernels that it would load from the hub
def test_eight_bits_learn_and_resume_to_the_bit(recipe: Make) -> None:
    pytest.importorskip("bitsandbytes", reason="not installed: pip install 's2s[8bit]'")
    from safetensors.torch import load_file

    # a matrix has to have 4,096 values before its moments are rounded
    changes = ["training.max_steps=6", "training.save_steps=3", "training.optim=adamw_8bit"]
    changes += ["model.encoder.config.intermediate_size=128"]
    results = finetune(recipe(*changes))
    finetune(recipe(*changes, "output=runs/again"), resume="runs/tiny/checkpoint-3")
    same_files(Path("runs/tiny/checkpoint-6"), Path("runs/again/checkpoint-6"))
    state = load_file("runs/tiny/checkpoint-6/optimizer.safetensors")
    assert state["encoder.layers.0.feedforward.inner.weight.state1"].dtype == torch.uint8
    whole = finetune(recipe(*changes[:1], *changes[3:], "output=runs/whole"))
    assert results["train_loss"] == pytest.approx(whole["train_loss"], rel=0.02)
