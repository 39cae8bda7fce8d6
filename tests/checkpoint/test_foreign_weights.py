"""Weight files that lie (faults.md M1, M2, M3, M7): refused in little memory, and nothing outside opened."""

from __future__ import annotations

import json
import os
import re
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import seq2seq_cli
from seq2seq_cli.checkpoint.files import open_weights
from seq2seq_cli.checkpoint.safetensors_header import MAX_HEADER
from seq2seq_cli.checkpoint.weights import WeightFile
from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.families import FAMILIES
from tests import tiny
from tests.checkpoint.hostile import Loader
from tests.families.spec import spec

#: MiB that refusing a small folder may take, and one whose JSON is as large as is accepted
SMALL, LARGE = 64, 400


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    with Loader() as started:
        yield started


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    tiny.save_language_model("bert", folder)
    return folder


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A whole folder of BERT, to be damaged."""
    copy = tmp_path / "model"
    copy.mkdir()
    for file in published.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def refused(loader: Loader, folder: Path, *, megabytes: float = SMALL) -> str:
    outcome = loader.load(folder)
    assert outcome.kind == "refused", outcome
    assert outcome.text.startswith("CheckpointError"), outcome
    assert outcome.megabytes < megabytes, outcome
    return outcome.text


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write(path: Path, header: object, data: bytes = b"") -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


# --- M1: pytorch_model.bin ------------------------------------------------------------------------------


class Touch:
    """A pickle of this runs a command when it is read without protection."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def as_bin(folder: Path, **extra: Any) -> Path:
    """The folder's weights as pytorch_model.bin, in place of its safetensors file."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save({**state, **extra}, path)
    return path


def rewrite(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        records = {record.filename: archive.read(record) for record in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, change(name, content))


def test_m1_a_pickle_that_runs_a_command_runs_nothing(folder: Path, tmp_path: Path, loader: Loader) -> None:
    as_bin(folder, extra=Touch(tmp_path / "touched"))
    assert "asks for more than tensors" in refused(loader, folder)
    assert not (tmp_path / "touched").exists()


def test_m1_safetensors_are_preferred(folder: Path, tmp_path: Path, loader: Loader) -> None:
    torch.save({"extra": Touch(tmp_path / "touched")}, folder / "pytorch_model.bin")
    assert loader.load(folder).kind == "loaded"
    assert not (tmp_path / "touched").exists()


def test_m1_a_zip_bomb_is_refused_by_its_table_of_contents(folder: Path, loader: Loader) -> None:
    path = as_bin(folder)
    rewrite(path, lambda name, content: content + b"\0" * 2**26 * ("/data/0" in name), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    assert "compressed archive" in refused(loader, folder)


@pytest.mark.parametrize("change", [-4, 4, 4000])
def test_m1_records_unlike_their_storages(folder: Path, loader: Loader, change: int) -> None:
    """torch alone would read on into the next record."""

    def resized(name: str, content: bytes) -> bytes:
        if not name.endswith("/data/3"):
            return content
        return content + b"\0" * change if change > 0 else content[:change]

    rewrite(as_bin(folder), resized)
    assert "not as long as the tensors" in refused(loader, folder)


def test_m1_records_that_no_tensor_uses(folder: Path, loader: Loader) -> None:
    path = as_bin(folder)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("pytorch_model/data/999", b"more")
    assert "not as long as the tensors" in refused(loader, folder)


def test_m1_numbers_of_the_other_byte_order(folder: Path, loader: Loader) -> None:
    other = b"big" if sys.byteorder == "little" else b"little"
    rewrite(as_bin(folder), lambda name, content: other if name.endswith("byteorder") else content)
    assert "byte order" in refused(loader, folder)


def test_m1_the_size_is_looked_at_before_anything_is_read(folder: Path, loader: Loader) -> None:
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    path.write_bytes(b"\x80\x02")
    os.truncate(path, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") + 1)
    assert "read as a whole" in refused(loader, folder)


def test_m1_bin_gives_the_same_model(folder: Path) -> None:
    """Views, transposed tensors and tensors that share memory arrive as they were saved."""
    loaded = seq2seq_cli.load(folder).model.state_dict()
    before = {name: tensor.clone() for name, tensor in loaded.items()}
    state = load_file(folder / "model.safetensors")
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    state[name] = state[name].t().contiguous().t()
    other = "bert.encoder.layer.0.output.dense.weight"
    state[other] = torch.stack([state[other], state[other] + 1])[0]
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    after = seq2seq_cli.load(folder).model.state_dict()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())
    assert all(tensor.is_contiguous() for tensor in after.values())


@pytest.mark.parametrize("zipped", [True, False])
def test_m1_tensors_that_share_memory_become_two_parameters(folder: Path, zipped: bool) -> None:
    state = load_file(folder / "model.safetensors")
    one, other = (f"bert.encoder.layer.{i}.output.dense.weight" for i in (0, 1))
    state[other] = state[one]
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    parameters = dict(seq2seq_cli.load(folder).model.named_parameters())
    one, other = (f"layers.{i}.feedforward.outer.weight" for i in (0, 1))
    assert torch.equal(parameters[one], parameters[other])
    assert parameters[one].data_ptr() != parameters[other].data_ptr()


# --- M2: safetensors ------------------------------------------------------------------------------------


def entry(begin: int, end: int, shape: list[Any], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_m2_a_header_of_2_to_the_63_or_larger_than_the_file(folder: Path, loader: Loader) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for length in (2**63, 2**64 - 1, len(whole), len(whole) - 7):
        path.write_bytes(struct.pack("<Q", length) + whole[8:])
        assert f"{length:,} bytes" in refused(loader, folder)


def test_m2_a_hundred_megabytes_of_json(folder: Path, loader: Loader) -> None:
    path = folder / "model.safetensors"
    write(path, b"[" + b"[]," * (100 * 2**20 // 3) + b"1]")
    assert "the most that is accepted" in refused(loader, folder)


def test_m2_as_much_json_as_is_accepted(folder: Path, loader: Loader) -> None:
    """Brackets are what takes the most memory for its size."""
    path = folder / "model.safetensors"
    count = MAX_HEADER // 3 - 10
    write(path, b'{"a": [' + b"[]," * count + b"1]}")
    assert "unknown dtype" in refused(loader, folder, megabytes=LARGE)
    write(path, b"{" + b",".join(b'"%d":1' % i for i in range(MAX_HEADER // 12)) + b"}")
    assert "unknown dtype" in refused(loader, folder, megabytes=LARGE)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": entry(0, 4, [1]), "b": entry(0, 4, [1])}, 4, "overlaps"),
        ({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, 12, "overlaps"),
        ({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, 12, "hole"),
        ({"a": entry(4, 8, [1])}, 8, "hole"),
        ({"a": entry(8, 4, [1])}, 8, "has -4"),
        ({"a": entry(0, 4, [1], "F31")}, 4, "unknown dtype 'F31'"),
        ({"a": entry(0, 4, [1], "F64")}, 4, "needs 8 bytes"),
        ({"a": entry(0, 4, [2**62, 4])}, 4, "needs"),
        ({"a": entry(0, 2**62, [2**60])}, 4, "the file has 4"),
        ({"a": entry(0, 4, [1] * 1000)}, 4, "no usable shape"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, 4, "no usable shape"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}}, 4, "no usable shape"),
        ({"a": {"dtype": {"a": [{}]}, "shape": [1]}}, 0, "unknown dtype"),
        (b'{"a": \xff\xfe}', 0, "not UTF-8"),
        (b'{"a": 1, "a": 1}', 0, "duplicate key 'a'"),
        (b'{"\\ud800": 1}', 0, "unknown dtype"),
        (b"[" * 100_000, 0, "nested too deeply"),
        (b"", 0, "not valid JSON"),
    ],
)
def test_m2_headers_that_lie(folder: Path, loader: Loader, header: object, data: int, message: str) -> None:
    write(folder / "model.safetensors", header, b"\0" * data)
    text = refused(loader, folder)
    assert message in text
    assert "model.safetensors" in text


def test_m2_shapes_are_compared_before_the_data_is_read(folder: Path, loader: Loader) -> None:
    """A tensor of 8 GiB, which the disk does not even hold: only a read of it would show."""
    path = folder / "model.safetensors"
    header, data = header_of(path)
    header["bert.embeddings.word_embeddings.weight"]["shape"] = [2**26, 32]
    position = 0
    for value in header.values():
        if "shape" in value:
            size = 4 * int(torch.Size(value["shape"]).numel())
            value["data_offsets"] = [position, position + size]
            position += size
    write(path, header, data)
    os.truncate(path, path.stat().st_size - len(data) + position)
    assert "(67108864, 32) instead of (60, 32)" in refused(loader, folder)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_m2_numbers_that_are_no_fractions(folder: Path, loader: Loader, dtype: torch.dtype) -> None:
    weights = load_file(folder / "model.safetensors")
    name = "bert.encoder.layer.0.output.dense.weight"
    weights[name] = weights[name].to(dtype)
    save_file(weights, folder / "model.safetensors")
    assert "not floating point: layers.0.feedforward.outer.weight" in refused(loader, folder)


def test_m2_a_file_that_is_cut_between_header_and_data(folder: Path) -> None:
    weights = open_weights(folder)
    path = folder / "model.safetensors"
    os.truncate(path, path.stat().st_size // 2)
    last = list(weights)[-1]
    with pytest.raises(CheckpointError, match="ends too early"):
        weights[last]
    with pytest.raises(CheckpointError, match="ends too early"):
        weights.borrow(last)


def test_m2_a_replaced_file_does_not_change_a_loaded_model(folder: Path) -> None:
    model = seq2seq_cli.load(folder).model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    zeros = {name: torch.zeros_like(t) for name, t in load_file(folder / "model.safetensors").items()}
    save_file(zeros, folder / "new")
    (folder / "new").replace(folder / "model.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_m2_training_a_loaded_model_writes_no_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    before = path.read_bytes()
    model = seq2seq_cli.load(folder).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert path.read_bytes() == before


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_weights_are_mapped_and_nothing_is_read(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.save_language_model(family, tmp_path)
    monkeypatch.setattr(WeightFile, "read", lambda *arguments: pytest.fail("read"))
    seq2seq_cli.load(tmp_path)


def test_weights_are_read_where_they_cannot_be_mapped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = seq2seq_cli.load(folder).model.state_dict()

    def refuse(file: WeightFile) -> None:
        raise OSError("no mappings here")

    monkeypatch.setattr(WeightFile, "mapped", property(refuse))
    after = seq2seq_cli.load(folder).model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_file_whose_tensors_are_not_aligned_loads(folder: Path) -> None:
    state = seq2seq_cli.load(folder).model.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    path = folder / "model.safetensors"
    header, data = header_of(path)
    for spaces in range(4):
        write(path, json.dumps(header).encode() + b" " * spaces, data)
        after = seq2seq_cli.load(folder).model.state_dict()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


# --- M3: what an index may name -------------------------------------------------------------------------


opened: list[str] = []
watching = False


def note(event: str, arguments: tuple[Any, ...]) -> None:
    if watching and event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        opened.append(os.path.realpath(os.fsdecode(arguments[0])))


@pytest.fixture
def opens() -> Iterator[list[str]]:
    """What is opened while the test runs."""
    global watching
    if not hasattr(sys, "_s2s_watch"):
        sys.addaudithook(note)  # can never be removed
        sys._s2s_watch = True  # type: ignore[attr-defined]
    opened.clear()
    watching = True
    yield opened
    watching = False


def shard(folder: Path, places: dict[str, str] | str) -> None:
    """Split the folder in two shards; ``places`` says for names where the index has them instead."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    first, second = names[: len(names) // 2], names[len(names) // 2 :]
    save_file({name: weights[name] for name in first}, folder / "one.safetensors")
    save_file({name: weights[name] for name in second}, folder / "two.safetensors")
    index = {name: "one.safetensors" if name in first else "two.safetensors" for name in names}
    if isinstance(places, str):
        places = {names[0]: places}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index | places}))


@pytest.mark.parametrize(
    "place",
    [
        *(
            "../x.safetensors",
            "/etc/passwd",
            "C:\\x.safetensors",
            "\\\\srv\\x.safetensors",
            "a/b.safetensors",
        ),
        *("/dev/zero", "", ".", "..", "one.safetensors\0", "config.json", "gone.safetensors", "\ud800"),
        "x" * 5000,
    ],
)
def test_m3_shards_outside_or_missing_are_never_opened(
    folder: Path, tmp_path: Path, place: str, opens: list[str]
) -> None:
    (tmp_path / "x.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    shard(folder, place)
    opens.clear()
    with pytest.raises(CheckpointError, match=r"shard|plain file name"):
        seq2seq_cli.load(folder)
    touched = [path for path in opens if path.endswith((".safetensors", "passwd", "zero"))]
    assert not touched


@pytest.mark.parametrize("kind", ["link out", "fifo", "zero", "circle", "folder", "socket"])
def test_m3_shards_that_are_no_files_of_the_folder(
    folder: Path, tmp_path: Path, kind: str, loader: Loader, opens: list[str]
) -> None:
    path = folder / "bad.safetensors"
    (tmp_path / "outside").write_bytes((folder / "model.safetensors").read_bytes())
    if kind == "link out":
        path.symlink_to(tmp_path / "outside")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "circle":
        path.symlink_to(folder / "also.safetensors")
        (folder / "also.safetensors").symlink_to(path)
    elif kind == "folder":
        path.mkdir()
    else:
        import socket

        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    shard(folder, "bad.safetensors")
    opens.clear()
    with pytest.raises(CheckpointError, match="refused shard"):
        open_weights(folder)
    assert not [name for name in opens if name.endswith((".safetensors", "outside", "zero"))]
    refused(loader, folder)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json"])
@pytest.mark.parametrize("kind", ["link out", "fifo", "zero"])
def test_m3_the_files_themselves(folder: Path, tmp_path: Path, name: str, kind: str, loader: Loader) -> None:
    if name == "pytorch_model.bin":
        as_bin(folder)
    path = folder / name
    path.rename(tmp_path / "outside")
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "outside" if kind == "link out" else "/dev/zero")
    refused(loader, folder)


def test_m3_a_tensor_in_two_shards_and_one_in_none(folder: Path) -> None:
    shard(folder, {})
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    first = load_file(folder / "one.safetensors")
    second = load_file(folder / "two.safetensors")
    name = next(iter(first))
    save_file({**second, name: first[name]}, folder / "two.safetensors")
    with pytest.raises(CheckpointError, match=f"tensor '{name}' is in one.safetensors too"):
        seq2seq_cli.load(folder)
    save_file(second, folder / "two.safetensors")
    index["weight_map"]["novelty.weight"] = "one.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"tensor 'novelty\.weight' is not in one"):
        seq2seq_cli.load(folder)


def test_m3_too_many_shards_and_too_many_faults(folder: Path, loader: Loader) -> None:
    shard(folder, {f"x{i}": f"gone{i}.safetensors" for i in range(200)})
    text = refused(loader, folder)
    assert "and 190 more" in text
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {f"x{i}": f"gone{i}.safetensors" for i in range(50_000)}})
    )
    assert "50,000 shards" in refused(loader, folder)


def test_m3_a_snapshot_of_the_hubs_cache_loads(folder: Path, tmp_path: Path) -> None:
    shard(folder, {})
    before = {name: t.clone() for name, t in seq2seq_cli.load(folder).model.state_dict().items()}
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(folder.iterdir()):
        file.rename(repository / "blobs" / f"b{number}")
        (snapshot / file.name).symlink_to(f"../../blobs/b{number}")
    found = seq2seq_cli.load(snapshot).model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in before.items())


# --- M7: numbers and names ------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_m7_damage_is_named_and_counted_in_every_family(family: str, tmp_path: Path) -> None:
    """Never a random parameter, and never a number that is none."""
    role = "decoder" if "decoder" in spec(family).roles else "encoder"
    spec(family).publish("", role, tmp_path)
    path = tmp_path / "model.safetensors"
    whole = load_file(path)
    report = seq2seq_cli.load(tmp_path, role=role).report
    assert not report.fresh
    attention = [name for name in whole if "attention" in name.lower() or "attn" in name]
    one, two = [name for name in attention if "EncDec" not in name][-2:]

    def refusal(weights: dict[str, torch.Tensor]) -> str:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
        with pytest.raises(CheckpointError) as caught:
            seq2seq_cli.load(tmp_path, role=role)
        assert str(tmp_path) in str(caught.value)
        return str(caught.value)

    for bad in (float("nan"), float("inf")):
        broken = {name: tensor.clone() for name, tensor in whole.items()}
        for name in (one, two):
            broken[name].view(-1)[5] = bad
        assert "parameters hold NaN or infinity: " in refusal(broken)
    gone = {name: tensor for name, tensor in whole.items() if name not in (one, two)}
    assert "parameters are missing: " in refusal(gone)
    strange = {f"{name}.novelty": torch.zeros(3) for name in (one, two)}
    assert "2 unexpected parameters: " in refusal(whole | strange)
    short = {**whole, one: whole[one][:-1], two: whole[two][:-1]}
    assert "shape" in refusal(short)
    save_file(whole, path)
    assert seq2seq_cli.load(tmp_path, role=role).report.loaded == report.loaded


@pytest.mark.parametrize("number", ["7", "01", "9" * 40])
@pytest.mark.parametrize("family", FAMILIES)
def test_m7_layers_beyond_config_are_named_and_counted(family: str, number: str, tmp_path: Path) -> None:
    """A file that holds more than its config.json says is not the model that config.json describes."""
    role = "decoder" if "decoder" in spec(family).roles else "encoder"
    spec(family).publish("", role, tmp_path)
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    layer = r"(?<=[.])[01](?=[.](?!\d|weight$|bias$))"
    last = next(name for name in reversed(whole) if re.search(layer, name))
    strange = re.sub(layer, number, last, count=1)
    save_file(whole | {strange: whole[last].clone()}, file)
    with pytest.raises(CheckpointError, match=r"\d unexpected parameters: ") as refusal:
        seq2seq_cli.load(tmp_path, role=role)
    assert f".{number}." in str(refusal.value)


def test_matrices_stored_turned_round_are_views_and_fused_ones_are_taken_apart(tmp_path: Path) -> None:
    """What a fused optimizer may write to has its numbers side by side; nothing else was copied."""
    tiny.save_language_model("gpt2", tmp_path)
    attention = seq2seq_cli.load(tmp_path, role="decoder").model.layers[0].self_attention
    assert attention.output.weight.stride()[0] == 1
    for part in (attention.query, attention.key, attention.value):
        assert sorted(part.weight.stride()) == [1, part.weight.shape[0]]
        assert part.weight.untyped_storage().nbytes() == part.weight.nbytes
