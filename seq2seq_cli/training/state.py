"""What a run knows about itself between steps, and the checkpoints that hold it on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2seq_cli.checkpoint.files import checkpoints
from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.training.learnt import WEIGHTS_FILE
from seq2seq_cli.training.optimizer_state import state_tensors

if TYPE_CHECKING:
    import torch

    from seq2seq_cli.checkpoint.bundle import Bundle
    from seq2seq_cli.training.sharding import Shards

STATE_FILE = "trainer_state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
_FORMAT = 1


@dataclass(kw_only=True)
class RunState:
    """Where a run stands. ``step`` optimizer steps are done, ``position`` of them in epoch ``epoch``.

    Batch order and dropout are functions of the seed and these numbers, so nothing of the kind is stored.
    ``window_*`` are sums since the last log line, so that a resumed run writes the same lines.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    tokens_seen: int = 0  #: real target tokens learnt from
    seconds: float = 0.0  #: time in steps, over all starts
    elapsed: float = 0.0  #: the same with evaluations and saves
    window_loss: float = 0.0
    window_tokens: int = 0
    window_seconds: float = 0.0
    evaluation_pending: bool = False  #: an evaluation at this step was broken off and is to be done again
    best_step: int | None = None
    best_value: float | None = None
    bad_evaluations: int = 0  #: evaluations in a row without a better one
    loss_scale: dict[str, float] | None = None  #: fp16's, with what it counts
    skipped: int = 0  #: steps without finite numbers that were passed over
    finished: str = ""  #: why the run is over: steps, early_stopping or max_minutes; "" while it is not


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint folder read back: ``state``, what the run was made from, which parameters were fresh."""

    folder: Path
    state: RunState
    identity: Mapping[str, Any]
    fresh: tuple[str, ...] = field(default=())


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` lies."""
    return run / f"checkpoint-{step}"


def write_checkpoint(
    run: Path,
    *,
    bundle: Bundle,
    optimizer: torch.optim.Optimizer,
    names: Mapping[torch.Tensor, str],
    state: RunState,
    identity: Mapping[str, Any],
    fresh: Collection[str],
    weights: Mapping[str, torch.Tensor],
    shards: Shards | None = None,
) -> Path:
    """Write checkpoint-STEP whole or not at all; ResourceError when it cannot be written. ``weights``: those
    that the run goes on with, where the model's are not these. ``shards``: what the optimizer knows is
    sliced, and the other processes write along."""
    from safetensors.torch import save_file

    from seq2seq_cli.checkpoint.folder import write_folder
    from seq2seq_cli.checkpoint.saving import write_model

    tensors = state_tensors(optimizer, names)
    record = {
        "format": _FORMAT,
        **asdict(state),
        "fresh": sorted(fresh),
        "identity": dict(identity),
    }

    def write(folder: Path) -> None:
        write_model(bundle, folder)
        if shards is None:
            save_file(tensors, folder / OPTIMIZER_FILE)
        else:
            shards.write_first(tensors, folder, OPTIMIZER_FILE)
        if weights:
            save_file(dict(weights), folder / WEIGHTS_FILE)
        (folder / STATE_FILE).write_text(
            json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )

    needed = sum(tensor.nbytes for tensor in (*tensors.values(), *weights.values()))
    needed += sum(parameter.nbytes for parameter in bundle.model.parameters())
    target = checkpoint_folder(run, state.step)
    try:
        write_folder(target, write, overwrite=True, manifest=True, needed=needed)
    finally:
        if shards is not None:
            shards.release()
    return target


def read_checkpoint(folder: Path) -> Checkpoint:
    """The state in a checkpoint folder. CheckpointError, with every finding, when it is not whole."""
    from seq2seq_cli.checkpoint.files import read_json
    from seq2seq_cli.checkpoint.folder import MANIFEST, verify_manifest

    if not folder.is_dir():
        raise CheckpointError("no such checkpoint folder", where=str(folder))
    if not (folder / MANIFEST).is_file():
        what = f"this is no whole checkpoint of a run: {MANIFEST} is missing"
        raise CheckpointError(what, where=str(folder), remedy="name a folder checkpoint-STEP of a run")
    findings = verify_manifest(folder)
    if findings:
        raise CheckpointError(findings=findings)
    record = read_json(folder, STATE_FILE)
    if record is None or record.get("format") != _FORMAT:
        what = f"{STATE_FILE} is missing" if record is None else "written by another version of s2s"
        raise CheckpointError(what, where=str(folder / STATE_FILE), remedy="start again with --overwrite")
    known = {f.name: record[f.name] for f in fields(RunState) if f.name in record}
    return Checkpoint(
        folder=folder,
        state=RunState(**known),
        identity=record.get("identity", {}),
        fresh=tuple(record.get("fresh", ())),
    )


def remove_old(run: Path, *, limit: int | None, best_step: int | None) -> None:
    """Delete all checkpoints but the newest ``limit`` (None: keep all) and the best one."""
    if limit is None:
        return
    for step, folder in checkpoints(run)[:-limit]:
        if step != best_step:
            shutil.rmtree(folder, ignore_errors=True)


def model_files(folder: Path) -> Sequence[Path]:
    """What a checkpoint folder holds of the model itself."""
    from seq2seq_cli.checkpoint.folder import MANIFEST

    apart = {STATE_FILE, OPTIMIZER_FILE, WEIGHTS_FILE, MANIFEST}
    return sorted(path for path in folder.iterdir() if path.name not in apart)
