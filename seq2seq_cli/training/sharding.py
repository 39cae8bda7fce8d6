"""Parameters, gradients and optimizer state in slices, one a process (FSDP2: Zhao et al. 2023), by torch.

Asked for as Accelerate's users do: its launch file says FSDP or DeepSpeed. Either way the slicing is torch's
``fully_shard``, on a GPU and, where Accelerate itself falls back to whole copies without a word, on a CPU.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seq2seq_cli import console
from seq2seq_cli.errors import CheckpointError, Finding, UsageError
from seq2seq_cli.model import Stack
from seq2seq_cli.recipe import changed

if TYPE_CHECKING:
    from accelerate import Accelerator

    from seq2seq_cli.recipe import Recipe
    from seq2seq_cli.training.optimizer import Parts

#: what Accelerate would act on by itself; by the last it would divide gradients, whose mean a step takes
_SWITCHES = (
    *("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
)


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How parameters are sliced. ``release``: a layer's whole weights go as soon as it has been computed, and
    come again on the way back; ``offload``: slices wait in the CPU's memory; ``one_file``: a checkpoint has
    the optimizer's state in one file, instead of one a process."""

    release: bool = True
    offload: bool = False
    one_file: bool = False


def _is(name: str, value: str = "true") -> bool:
    return os.environ.get(name, "").lower() == value


def asked() -> Sharding | None:
    """What the launcher asks for; None = a whole copy in every process. UsageError for what torch's FSDP2
    cannot do."""
    if _is("ACCELERATE_USE_DEEPSPEED"):
        return _deepspeed()
    if not _is("ACCELERATE_USE_FSDP"):
        return None
    if os.environ.get("FSDP_VERSION", "1") != "2":
        remedy = "write fsdp_version: 2 into fsdp_config (accelerate to-fsdp2 rewrites the file)"
        raise UsageError("s2s shards by FSDP2 alone", where="Accelerate's launch file", remedy=remedy)
    return Sharding(
        release=not _is("FSDP_RESHARD_AFTER_FORWARD", "false"),
        offload=_is("FSDP_OFFLOAD_PARAMS"),
        one_file=_is("FSDP_STATE_DICT_TYPE", "full_state_dict"),
    )


def _deepspeed() -> Sharding | None:
    """The stages of ZeRO (Rajbhandari et al. 2020) in torch's terms."""
    stage, devices = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"), []
    for which in ("OPTIMIZER", "PARAM"):
        devices.append(os.environ.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{which}_DEVICE", "none"))
    file = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if file.lower() != "none":
        try:
            zero = json.loads(Path(file).read_text(encoding="utf-8")).get("zero_optimization", {})
            stage = str(zero.get("stage", 0))
            offloads = (zero.get(f"offload_{which}", {}) for which in ("optimizer", "param"))
            devices = [str(offload.get("device", "none")) for offload in offloads]
        except (OSError, ValueError, AttributeError) as error:
            raise UsageError(f"DeepSpeed's configuration cannot be read: {error}", where=file) from error
    if "nvme" in devices:
        raise UsageError("s2s offloads to the CPU's memory, not to a disk", remedy="write cpu for nvme")
    if stage not in ("0", "1", "2", "3"):
        raise UsageError(f"there is no ZeRO stage {stage}", remedy="take 0, 1, 2 or 3")
    console.say(
        f"DeepSpeed's ZeRO stage {stage} is done by torch's FSDP2; of its configuration the stage and the "
        "offloading are followed, the recipe says the rest"
    )
    return None if stage == "0" else Sharding(release=stage == "3", offload="cpu" in devices)


@contextmanager
def plain_accelerate() -> Iterator[None]:
    """A block in which Accelerate forms the group of processes and leaves models whole."""
    kept = {name: os.environ.pop(name) for name in _SWITCHES if name in os.environ}
    try:
        yield
    finally:
        os.environ |= kept


def check(recipe: Recipe, parts: Parts) -> None:
    """UsageError for what does not go with slices of parameters."""
    training = recipe.training
    problems = {
        "mixed_precision: fp16": training.mixed_precision == "fp16",
        f"optim: {training.optim}": not training.optim.startswith("adamw_torch"),
        "cache_encoder_states": bool(training.cache_encoder_states),
        "encoder_cache_mb": "encoder_cache_mb" in changed(training),
        "ema_decay": training.ema_decay is not None,
        "lora": recipe.model.lora is not None,
        "torch_compile": training.torch_compile,
        "auto_find_batch_size": training.auto_find_batch_size,
        "freeze_steps and freeze_after": any(p.freeze_steps or p.freeze_after for p in parts.parts),
    }
    what = "does not go with FSDP"
    found = [Finding(f"{name} {what}", "training", "remove it") for name, is_so in problems.items() if is_so]
    if found:
        raise UsageError(findings=found)


def units(module: nn.Module) -> list[nn.Module]:
    """The layers that are sliced by themselves, so that one at a time is whole: those that run once a pass
    and share no parameter with anything outside. All else is sliced with the module itself."""
    everywhere = _holders(module)
    found: list[nn.Module] = []
    for stack in module.modules():
        if isinstance(stack, Stack):
            once = [which for which, times in Counter(stack.order).items() if times == 1]
            found += [stack.layers[which] for which in once]
    return [layer for layer in found if all(everywhere[p] == n for p, n in _holders(layer).items())]


def _holders(module: nn.Module) -> Counter[int]:
    """In how many places each parameter is held, by ``id``."""
    return Counter(id(p) for each in module.modules() for p in each._parameters.values() if p is not None)


class Shards:
    """``module`` in slices, from here on. Frozen parameters must be so already."""

    def __init__(self, module: nn.Module, sharding: Sharding, accelerator: Accelerator) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

        self.sharding, self._accelerator = sharding, accelerator
        if accelerator.device.type == "cpu":
            console.say("Accelerate has no FSDP on a CPU, it would keep whole copies: torch slices the model")
        if not sharding.offload:
            module.to(accelerator.device)
        forward = module.forward

        def in_its_precision(*arguments: Any) -> Any:
            with accelerator.autocast():
                return forward(*arguments)

        module.forward = in_its_precision
        options: dict[str, Any] = {
            "mesh": init_device_mesh(accelerator.device.type, (accelerator.num_processes,)),
            "offload_policy": CPUOffloadPolicy() if sharding.offload else OffloadPolicy(),
        }
        self._units: list[Any] = units(module)
        for unit in self._units:
            fully_shard(unit, reshard_after_forward=sharding.release, **options)
        self._root: Any = fully_shard(module, reshard_after_forward=False, **options)
        self._root._get_fsdp_state()._lazy_init()  # else the first layer that evaluates takes itself for it

    def parts(self, model: nn.Module, parts: Parts) -> Parts:
        """``parts`` of ``model`` with slices in the place of parameters."""
        now = dict(model.named_parameters(remove_duplicate=False))
        renewed = (
            replace(part, parameters=tuple((name, now[name]) for name, _ in part.parameters))
            for part in parts.parts
        )
        return replace(parts, parts=tuple(renewed))

    @contextmanager
    def whole(self) -> Iterator[None]:
        """A block in which every process has all weights and may use them without the others."""
        for each in (self._root, *self._units):
            each.set_reshard_after_forward(False, recurse=False)
            each.unshard()
        try:
            yield
        finally:
            for each in (self._root, *self._units):
                each.reshard()
            for each in self._units:
                each.set_reshard_after_forward(self.sharding.release, recurse=False)

    # -- the optimizer's state on disk -------------------------------------------------------------------

    def write_first(self, tensors: Mapping[str, Tensor], folder: Path, file: str) -> None:
        """In the first process: write ``tensors`` into ``folder``, as the others do by ``write_along``."""
        torch.distributed.broadcast_object_list([str(folder)], src=0)
        self._write(tensors, folder, file)

    def release(self) -> None:
        """In the first process: let the others end ``write_along``, whatever came of it."""
        torch.distributed.broadcast_object_list([None], src=0)

    def write_along(self, tensors: Mapping[str, Tensor], file: str) -> None:
        """In the others: write their slices wherever the first process does, as often as it tries."""
        while True:
            box: list[str | None] = [None]
            torch.distributed.broadcast_object_list(box, src=0)
            if box[0] is None:
                return
            self._write(tensors, Path(box[0]), file)

    def _write(self, tensors: Mapping[str, Tensor], folder: Path, file: str) -> None:
        from safetensors.torch import save_file

        size, rank = self._accelerator.num_processes, self._accelerator.process_index
        if self.sharding.one_file:
            full = {}
            for name in sorted(tensors):
                tensor = gathered(tensors[name])
                if rank == 0:
                    full[name] = tensor.cpu()
            if rank == 0:
                save_file(full, folder / file)
        else:
            slices = {name: local(tensor).contiguous() for name, tensor in tensors.items()}
            save_file(slices, folder / shard_name(file, rank, size))
        self._accelerator.wait_for_everyone()


def shard_name(file: str, rank: int, size: int) -> str:
    """The file of one process: ``optimizer-00001-of-00002.safetensors``."""
    stem, _, ending = file.rpartition(".")
    return f"{stem}-{rank + 1:05d}-of-{size:05d}.{ending}"


def local(tensor: Tensor) -> Tensor:
    """This process's slice of a tensor; of a whole one all of it."""
    found: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return found


def gathered(tensor: Tensor) -> Tensor:
    """All of a tensor, from the slices of all processes."""
    found: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return found


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor as ``parameter`` is: on its device, and sliced where it is sliced."""
    if not hasattr(parameter, "to_local"):
        return tensor.to(parameter.device, copy=True)
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(parameter, DTensor)
    there = tensor.to(parameter.device)
    sliced = distribute_tensor(there, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return sliced.clone()


def stored(folder: Path, file: str, check_header: Callable[[Path], Any]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of ``file`` in ``folder``, put together where processes wrote a slice each. One at a time
    is in memory."""
    from safetensors import safe_open

    stem, _, ending = file.rpartition(".")
    paths = [folder / file] if (folder / file).is_file() else sorted(folder.glob(f"{stem}-*-of-*.{ending}"))
    if not paths:
        raise CheckpointError(f"{file} is missing", where=str(folder), remedy="name another checkpoint")
    for path in paths:
        check_header(path)  # refuses a hostile file before the library sees it
    opened: list[Any] = [safe_open(path, framework="pt") for path in paths]
    for key in opened[0].keys():  # noqa: SIM118 - it is no mapping
        slices = [each.get_tensor(key) for each in opened]
        yield key, slices[0] if slices[0].ndim == 0 or len(slices) == 1 else torch.cat(slices)
