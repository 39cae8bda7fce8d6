"""Reading a published folder without trusting it: which files may be opened, JSON, and the weights.

Nothing here runs code from a checkpoint: safetensors files hold numbers only, and ``pytorch_model.bin`` is
read with ``weights_only=True`` alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2seq_cli.checkpoint.safetensors_header import read_header
from seq2seq_cli.checkpoint.strict_json import parse_json, shown
from seq2seq_cli.checkpoint.weights import StoredTensor, WeightFile, Weights
from seq2seq_cli.errors import CheckpointError, Finding
from seq2seq_cli.text.files import regular_file

if TYPE_CHECKING:
    from torch import Tensor

#: Bytes of JSON that are read at most: an index of fifty thousand tensors stays below. Nested brackets take
#: thirty times their size in memory, so the limit is one on that, too.
MAX_JSON = 8 * 2**20
#: far above any published checkpoint; so many headers of the size that is accepted would fill the memory
MOST_SHARDS = 1000
MOST_TENSORS = 100_000
#: how many shards or tensors an error names before it counts the rest
_SHOWN = 10

#: What a folder's weights may be called, the best first.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_OTHER_FRAMEWORKS = ("tf_model.h5", "flax_model.msgpack", "model.ckpt.index", "model.onnx")


def read_json(folder: Path, name: str) -> dict[str, Any] | None:
    """The JSON object in ``folder/name``; None when there is no such file. Raises CheckpointError."""
    path = regular_file(folder, name)
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_JSON + 1)
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise CheckpointError(f"not UTF-8 (byte {error.start})", where=f"{path}:{line}") from error
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if len(raw) > MAX_JSON:
        raise CheckpointError(f"larger than the {MAX_JSON:,} bytes that are accepted", where=str(path))
    value = parse_json(text, where=str(path))
    if not isinstance(value, dict):
        raise CheckpointError(f"a JSON object is expected, not {_kind(value)}", where=f"{path}:1:1")
    return value


def _kind(value: object) -> str:
    names = {list: "an array", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def read_config(folder: Path) -> dict[str, Any]:
    """The object in ``folder/config.json``. Raises CheckpointError when it is missing or not usable."""
    config = read_json(folder, "config.json")
    if config is None:
        what, remedy = "no config.json", "name a folder in Hugging Face format"
        if inside := checkpoints(folder):
            what = "this run has not come to its end"
            remedy = f"finish it with s2s finetune, or take {inside[-1][1]}"
        raise CheckpointError(what, where=str(folder), remedy=remedy)
    return config


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """(step, folder) of the checkpoint-STEP in a run's folder, the oldest first; whole or damaged."""
    if not run.is_dir():
        return []
    found = [(_CHECKPOINT.fullmatch(path.name), path) for path in run.iterdir() if path.is_dir()]
    return sorted((int(match[1]), path) for match, path in found if match)


def open_weights(folder: Path) -> Weights:
    """The weights of a published folder: safetensors where there are any, else ``pytorch_model.bin``.

    Raises CheckpointError when there are none, and when a file is damaged, missing or not safe to read.
    """
    for name in WEIGHT_FILES:
        path = regular_file(folder, name)
        if path is None:
            continue
        listed: dict[str, str] = {}
        paths: tuple[Path, ...] = (path,)
        if name.endswith(".index.json"):
            listed, paths = _read_index(folder, name)
        return Weights(_gather(paths, listed))
    others = [name for name in _OTHER_FRAMEWORKS if (folder / name).exists()]
    raise CheckpointError(
        "no weights: looked for " + ", ".join(WEIGHT_FILES),
        where=str(folder),
        remedy=f"{others[0]} is another program's format: convert it to safetensors first" if others else "",
    )


def read_tensors(folder: Path, name: str) -> Weights:
    """The tensors in the safetensors file ``folder/name``. Raises CheckpointError when there is none."""
    path = regular_file(folder, name)
    if path is None:
        raise CheckpointError(f"no {name}", where=str(folder))
    return Weights(_gather((path,), {}))


def _read_index(folder: Path, name: str) -> tuple[dict[str, str], tuple[Path, ...]]:
    """Tensor name -> file name, and the files, of a sharded checkpoint."""
    index = read_json(folder, name) or {}
    where = str(folder / name)
    listed = index.get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(f, str) for f in listed.values()):
        raise CheckpointError("weight_map does not map tensor names to file names", where=where)
    ending = ".safetensors" if ".safetensors" in name else ".bin"
    paths: list[Path] = []
    findings: list[Finding] = []
    shards = dict.fromkeys(listed.values())
    if len(shards) > MOST_SHARDS:
        raise CheckpointError(f"{len(shards):,} shards, and we open {MOST_SHARDS:,}", where=where)
    for shard in shards:
        try:
            path = regular_file(folder, shard)
        except CheckpointError as error:
            findings += [Finding(f"refused shard: {f.what}", where, f.remedy) for f in error.findings]
            continue
        if not shard.endswith(ending):
            findings.append(Finding(f"shard {shown(shard)} is not a {ending} file", where))
        elif path is None:
            findings.append(Finding(f"shard {shown(shard)} is missing", where, "copy or download it again"))
        else:
            paths.append(path)
    _refuse(findings)
    return listed, tuple(paths)


def _gather(paths: Iterable[Path], listed: Mapping[str, str]) -> dict[str, StoredTensor | Tensor]:
    """All tensors of the files; refuses one that is in two of them or not where the index says."""
    gathered: dict[str, StoredTensor | Tensor] = {}
    places: dict[str, Path] = {}
    findings: list[Finding] = []
    for path in paths:
        for name, tensor in _read_file(path).items():
            if name in places:
                findings.append(Finding(f"tensor {shown(name)} is in {places[name].name} too", str(path)))
            gathered[name], places[name] = tensor, path
        if len(gathered) > MOST_TENSORS:
            raise CheckpointError(f"more than {MOST_TENSORS:,} tensors", where=str(path))
    for name, shard in listed.items():
        if name not in places or places[name].name != shard:
            findings.append(Finding(f"tensor {shown(name)} is not in {shard}, where the index has it"))
    _refuse(findings)
    return gathered


def _refuse(findings: list[Finding]) -> None:
    """Raise the first few findings, if there are any, with the number of the others."""
    rest = len(findings) - _SHOWN
    more = [Finding(f"and {rest} more of the kind")] if rest > 0 else []
    if findings:
        raise CheckpointError(findings=[*findings[:_SHOWN], *more])


#: the format's names of number types -> torch's
_DTYPES = {
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}


def _read_file(path: Path) -> Mapping[str, StoredTensor | Tensor]:
    """Tensor name -> tensor or where its numbers are, for a file in either format."""
    if path.suffix == ".bin":
        from seq2seq_cli.checkpoint.pickled import read_state

        return read_state(path)
    file = WeightFile(path)
    return {
        name: StoredTensor(file=file, dtype=_DTYPES[entry.dtype], shape=entry.shape, begin=entry.begin)
        for name, entry in read_header(path).items()
    }
