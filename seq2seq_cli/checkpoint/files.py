"""Reading a published folder without trusting it: which files may be opened, JSON, and the weights.

Nothing here runs code from a checkpoint: safetensors files hold numbers only, and ``pytorch_model.bin`` is
read with ``weights_only=True`` alone.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2seq_cli.checkpoint.safetensors_header import read_header
from seq2seq_cli.checkpoint.strict_json import parse_json
from seq2seq_cli.errors import CheckpointError, Finding

if TYPE_CHECKING:
    from torch import Tensor

#: Bytes of JSON that are read at most (an index of a hundred thousand tensors stays below).
MAX_JSON = 32 * 2**20

#: What a folder's weights may be called, the best first.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

_OTHER_FRAMEWORKS = ("tf_model.h5", "flax_model.msgpack", "model.ckpt.index", "model.onnx")


def regular_file(folder: Path, name: str) -> Path | None:
    """``folder/name`` when it may be opened; None when nothing is there.

    Raises CheckpointError for a name that is more than a file's name, for a link that leads out of the folder
    (links of the hub's cache into its ``blobs/`` excepted), and for pipes, devices and folders.
    """
    where = str(folder / name) if "\0" not in name else repr(name)
    if name in ("", ".", "..") or any(mark in name for mark in "/\\:\0"):
        raise CheckpointError(f"{name!r} is not a plain file name", where=str(folder))
    path = folder / name
    try:
        path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", where=where) from error
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError) as error:  # RuntimeError: a circle of links, before Python 3.13
        raise CheckpointError("a link that leads nowhere", where=where) from error
    home = folder.resolve()
    if real.parent != home and not _is_cache_blob(real, home):
        raise CheckpointError(
            f"a link out of the folder (to {real})", where=where, remedy="copy the file into the folder"
        )
    if not stat.S_ISREG(mode):
        raise CheckpointError("not an ordinary file", where=where)
    return path


def _is_cache_blob(real: Path, home: Path) -> bool:
    """Is ``real`` where the hub's cache keeps the contents of the snapshot ``home``?

    ``home`` is REPOSITORY/snapshots/REVISION or a folder in it; contents are in REPOSITORY/blobs/NAME, or in
    blobs/XX/NAME beside REPOSITORY where repositories share them (huggingface_hub 2).
    """
    for parent in list(home.parents)[:2]:
        if parent.name == "snapshots":
            shared = parent.parent.parent / "blobs"
            return real.parent == parent.parent / "blobs" or real.parent.parent == shared
    return False


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
        raise CheckpointError(
            "no config.json", where=str(folder), remedy="name a folder in Hugging Face format"
        )
    return config


class Weights(Mapping[str, "Tensor"]):
    """Tensor name -> tensor, each read when it is asked for.

    Every ``weights[name]`` of a safetensors file reads a tensor of its own, so that what is not kept costs
    no memory (a mapped page would stay). The dtype is the file's.
    """

    def __init__(
        self,
        *,
        files: tuple[Path, ...],
        shapes: Mapping[str, tuple[int, ...]],
        read: Callable[[str], Tensor],
    ) -> None:
        self.files = files
        self._shapes = shapes
        self._read = read

    def names(self) -> tuple[str, ...]:
        """All names, in the order of the files."""
        return tuple(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's sizes, known without reading its data. Raises KeyError for an unknown name."""
        return self._shapes[name]

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._shapes:
            raise KeyError(name)
        return self._read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._shapes  # Mapping's own would read the tensor to find out

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


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
        return _open_safetensors(paths, listed) if ".safetensors" in name else _open_bin(paths, listed)
    others = [name for name in _OTHER_FRAMEWORKS if (folder / name).exists()]
    raise CheckpointError(
        "no weights: looked for " + ", ".join(WEIGHT_FILES),
        where=str(folder),
        remedy=f"{others[0]} is another program's format: convert it to safetensors first" if others else "",
    )


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
    for shard in dict.fromkeys(listed.values()):
        try:
            path = regular_file(folder, shard)
        except CheckpointError as error:
            findings += [Finding(f"refused shard: {f.what}", where, f.remedy) for f in error.findings]
            continue
        if not shard.endswith(ending):
            findings.append(Finding(f"shard {shard!r} is not a {ending} file", where))
        elif path is None:
            findings.append(Finding(f"shard {shard!r} is missing", where, "copy or download it again"))
        else:
            paths.append(path)
    if findings:
        raise CheckpointError(findings=findings)
    return listed, tuple(paths)


def _place_tensors(files: Mapping[Path, Mapping[str, Any]], listed: Mapping[str, str]) -> dict[str, Path]:
    """Tensor name -> its file; refuses a tensor in two files or not where the index says."""
    places: dict[str, Path] = {}
    findings: list[Finding] = []
    for path, names in files.items():
        for name in names:
            if name in places:
                findings.append(Finding(f"tensor {name!r} is in {places[name].name} too", str(path)))
            places[name] = path
    for name, shard in listed.items():
        if name not in places or places[name].name != shard:
            findings.append(Finding(f"tensor {name!r} is not in {shard}, where the index has it"))
    if findings:
        rest = len(findings) - 10
        more = [Finding(f"and {rest} more of the kind")] if rest > 0 else []
        raise CheckpointError(findings=[*findings[:10], *more])
    return places


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


def _open_safetensors(paths: tuple[Path, ...], listed: Mapping[str, str]) -> Weights:
    headers = {path: read_header(path) for path in paths}
    places = _place_tensors(headers, listed)

    def read(name: str) -> Tensor:
        import torch

        path = places[name]
        entry = headers[path][name]
        tensor = torch.empty(entry.shape, dtype=getattr(torch, _DTYPES[entry.dtype]))
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(entry.begin)
                octets: Any = tensor.flatten().view(torch.uint8).numpy()
                wanted = memoryview(octets) if tensor.numel() else memoryview(b"")
                while wanted:
                    count = file.readinto(wanted)
                    if not count:
                        raise OSError("the file ends too early")
                    wanted = wanted[count:]
        except OSError as error:
            raise CheckpointError(f"tensor {name!r} cannot be read: {error}", where=str(path)) from error
        return tensor

    shapes = {name: entry.shape for header in headers.values() for name, entry in header.items()}
    return Weights(files=paths, shapes=shapes, read=read)


def _open_bin(paths: tuple[Path, ...], listed: Mapping[str, str]) -> Weights:
    from seq2seq_cli.checkpoint.pickled import read_state

    states = {path: read_state(path) for path in paths}
    places = _place_tensors(states, listed)
    shapes = {name: tuple(tensor.shape) for state in states.values() for name, tensor in state.items()}
    return Weights(files=paths, shapes=shapes, read=lambda name: states[places[name]][name])
