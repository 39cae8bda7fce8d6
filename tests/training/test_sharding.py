"""Parameters in slices by torch's FSDP2 on two gloo processes: what is learnt, what goes on elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.checkpoint.files import checkpoints
from seq2seq_cli.errors import UsageError
from seq2seq_cli.model.layer import Layer
from seq2seq_cli.recipe import Recipe
from seq2seq_cli.training import sharding
from seq2seq_cli.training.run import finetune, make_accelerator
from seq2seq_cli.training.setup import prepare
from seq2seq_cli.training.sharding import Sharding
from tests.training.helpers import start_ranks
from tests.training.test_train_processes import learnt

Make = Callable[..., Recipe]
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
#: what ``ranks.sharded`` trains with, for one process with as large a step
ONE = ("training.dropout=0", "training.max_grad_norm=0.5", "training.gradient_accumulation_steps=2")
#: weights after a run of 20 steps differ by rounding alone
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def test_slices_learn_what_whole_copies_do_and_go_on_anywhere(
    recipe: Make, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finetune(recipe(*ONE, "output=runs/plain"))
    finetune(recipe(*ONE, "output=runs/one", "training.max_minutes=0.000001"))
    made = recipe()  # the file that the processes read
    assert made.output == Path("runs/tiny")
    said = start_ranks("sharded", workplace, **FSDP)
    runs = workplace / "runs"
    assert "torch slices the model" in said[0]
    assert "torch slices" not in said[1]
    plain, expected = learnt(runs / "plain"), weights(runs / "plain")
    for name in ("one", "no"):  # broken off by one process and ended by two; all of it by two
        for (step, loss, norms), (other, other_loss, other_norms) in zip(
            learnt(runs / name)[-3:], plain[-3:], strict=True
        ):
            assert (step, loss) == (other, pytest.approx(other_loss, rel=1e-3))
            assert norms == pytest.approx(other_norms, rel=1e-2)
        torch.testing.assert_close(weights(runs / name), expected, **CLOSE)
    assert learnt(runs / "bf16")[-1][1] == pytest.approx(plain[-1][1], rel=0.05)
    # begun by two with slices, ended by one without
    whole, sliced = runs / "full_state_dict", runs / "sharded_state_dict"
    (first,) = [folder for _, folder in checkpoints(sliced)]
    assert sorted(path.name for path in first.glob("optimizer*")) == [
        f"optimizer-0000{number}-of-00002.safetensors" for number in (1, 2)
    ]
    assert set(json.loads((first / "manifest.json").read_text())) >= {p.name for p in first.glob("optim*")}
    assert (checkpoints(whole)[0][1] / "optimizer.safetensors").is_file()
    for run in (whole, sliced):
        finetune(recipe(*ONE, f"output={run}"))
        assert "going on after step 1" in capsys.readouterr().err
        torch.testing.assert_close(weights(run), expected, **CLOSE)
    a, b = weights(whole), weights(sliced)
    assert all(torch.equal(a[name], b[name]) for name in a), "either kind holds the same numbers"
    assert load_bundle(str(runs / "no")).is_trained


def test_layers_are_sliced_one_by_one_but_for_shared_ones(recipe: Make) -> None:
    model = prepare(recipe()).bundle.model
    found = sharding.units(model)
    assert len(found) == 2
    assert all(isinstance(layer, Layer) for layer in found)
    shared = prepare(
        recipe(
            "model.share=all",
            "model.decoder=null",
            "model.encoder.config.num_hidden_layers=2",
        )
    ).bundle.model
    assert sharding.units(shared) == [], "the sides have their layers in common"


def test_what_launch_files_ask_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        monkeypatch.delenv(name, raising=False)
    assert sharding.asked() is None
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(UsageError, match="fsdp_version: 2"):
        sharding.asked()
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("FSDP_RESHARD_AFTER_FORWARD", "false")
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    monkeypatch.setenv("FSDP_STATE_DICT_TYPE", "FULL_STATE_DICT")
    assert sharding.asked() == Sharding(release=False, offload=True, one_file=True)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    assert sharding.asked() == Sharding()
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "0")
    assert sharding.asked() is None
    file = tmp_path / "zero.json"
    file.write_text('{"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}')
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    assert sharding.asked() == Sharding(release=False, offload=True)
    file.write_text('{"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}')
    with pytest.raises(UsageError, match="disk"):
        sharding.asked()
    file.write_text("no json")
    with pytest.raises(UsageError, match="cannot be read"):
        sharding.asked()


def test_what_does_not_go_with_slices_is_refused_all_at_once(recipe: Make) -> None:
    made = recipe(
        *("training.optim=adafactor", "training.ema_decay=0.9", "training.groups.decoder.freeze_steps=2"),
        *("training.cache_encoder_states=true", "model.freeze=[encoder]", "training.dropout=0"),
    )
    with pytest.raises(UsageError) as error:
        sharding.check(made, prepare(made).parts)
    said = str(error.value)
    assert all(name in said for name in ("adafactor", "ema_decay", "freeze_steps", "cache_encoder_states"))


def test_accelerate_divides_no_gradients(recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed's launch files set a number by which it would; a step's loss is a mean already."""
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert make_accelerator(recipe()).gradient_accumulation_steps == 1
    assert os.environ["ACCELERATE_GRADIENT_ACCUMULATION_STEPS"] == "4"
