"""Reading published folders, whole and hostile (faults.md M1-M3, M6)."""

from __future__ import annotations

import json
import os
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from seq2seq_cli.checkpoint.files import open_weights, read_config, read_json, regular_file
from seq2seq_cli.errors import CheckpointError


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        dict(open_weights(folder))
    return str(caught.value)


def write_safetensors(path: Path, header: object, data: bytes = b"", *, length: int | None = None) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)


def entry(begin: int, end: int, shape: list[Any] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [1] if shape is None else shape, "data_offsets": [begin, end]}


# --- JSON -----------------------------------------------------------------------------------------------


def test_config_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('\ufeff{"model_type": "bert", "ä": [1.5, null]}', encoding="utf-8")
    assert read_config(tmp_path) == {"model_type": "bert", "ä": [1.5, None]}
    assert read_json(tmp_path, "tokenizer_config.json") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{\n "a": 1,\n  "a": 2}', "duplicate key 'a' · {}:3:3"),
        (b'{"b": {"a": 1},\n "a": {"x": "\\"a\\":", "y": 1, "y": 2}}', "duplicate key 'y' · {}:2:31"),
        (b'{"s": "NaN",\n "a": NaN}', "NaN is not a JSON number · {}:2:7"),
        (b'{"a": -Infinity}', "-Infinity is not a JSON number · {}:1:7"),
        (b'{"a": 1e999}', "the number 1e999 is too large · {}:1:7"),
        (b'{"a": 1,}', "not valid JSON"),
        (b'{"a":\n \xff}', "not UTF-8 (byte 7) · {}:2"),
        (b"[1]", "a JSON object is expected, not an array · {}:1:1"),
        (b"", "not valid JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not usable JSON"),
        (b'{"a": ' + b"[" * 200_000, "nested too deeply"),
    ],
)
def test_bad_config_is_refused_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_config(tmp_path)
    assert message.format(path) in str(caught.value)


def test_missing_and_oversized_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"a": "' + "x" * 200 + '"}')
    monkeypatch.setattr("seq2seq_cli.checkpoint.files.MAX_JSON", 100)
    with pytest.raises(CheckpointError, match="larger than the 100 bytes"):
        read_config(tmp_path)


# --- which files may be opened (M3) ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "C:\\x", "\\\\srv\\x", "..", ".", "", "a/b", "a\0b"])
def test_m3_names_with_a_path_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match="not a plain file name"):
        regular_file(tmp_path, name)


def test_m3_links_pipes_devices_and_folders_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside").write_text("{}")
    (folder / "out").symlink_to(tmp_path / "outside")
    (folder / "circle").symlink_to(folder / "circle")
    (folder / "gone").symlink_to(folder / "nothing")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe")
    for name, message in {
        "out": "a link out of the folder",
        "circle": "leads nowhere",
        "gone": "leads nowhere",
        "zero": "a link out of the folder",
        "sub": "not an ordinary file",
        "pipe": "not an ordinary file",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            read_json(folder, name)
    (folder / "in").symlink_to("real.json")
    (folder / "real.json").write_text('{"a": 1}')
    assert read_json(folder, "in") == {"a": 1}


def test_m3_links_into_the_hub_cache_are_followed(tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / "abc"
    (snapshot / "decoder_tokenizer").mkdir(parents=True)
    (repository / "blobs").mkdir()
    (tmp_path / "blobs" / "ab").mkdir(parents=True)
    (repository / "blobs" / "111").write_text('{"a": 1}')
    (tmp_path / "blobs" / "ab" / "222").write_text('{"b": 1}')
    (repository / "blobs" / "333").symlink_to("../../blobs/ab/222")
    (snapshot / "config.json").symlink_to("../../blobs/111")
    (snapshot / "shared.json").symlink_to("../../blobs/333")
    (snapshot / "decoder_tokenizer" / "t.json").symlink_to("../../../blobs/111")
    (snapshot / "evil.json").symlink_to("../../../blobs/../other/blobs/111")
    (tmp_path / "other" / "blobs").mkdir(parents=True)
    (tmp_path / "other" / "blobs" / "111").write_text("{}")
    assert read_config(snapshot) == {"a": 1}
    assert read_json(snapshot, "shared.json") == {"b": 1}
    assert read_json(snapshot / "decoder_tokenizer", "t.json") == {"a": 1}
    with pytest.raises(CheckpointError, match="out of the folder"):
        read_json(snapshot, "evil.json")


# --- safetensors (M2) -----------------------------------------------------------------------------------


def test_safetensors_round_trip_and_order_of_preference(tmp_path: Path) -> None:
    tensors = {
        "b": torch.arange(6.0).reshape(2, 3),
        "a": torch.tensor([True, False]),
        "h": torch.ones(2, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 4),
    }
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    torch.save({"other": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    weights = open_weights(tmp_path)
    assert set(weights) == set(tensors)
    assert weights.outline("b").shape == (2, 3)
    assert weights.outline("h").dtype == torch.bfloat16
    assert "nothing" not in weights
    for name, tensor in tensors.items():
        assert torch.equal(weights[name], tensor)
        assert weights[name].dtype == tensor.dtype
    with pytest.raises(KeyError):
        weights["nothing"]


def test_names_and_shapes_come_without_reading_data(tmp_path: Path) -> None:
    """The data is a hole of 2 GiB: touching it would show in time and memory, and torch is not asked."""
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"x": entry(0, 2**31, [2**29])})
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 2**31)
    assert open_weights(tmp_path).outline("x").shape == (2**29,)


def test_changing_a_tensor_leaves_the_file_and_other_mappings_alone(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(3)}, tmp_path / "model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()
    other = open_weights(tmp_path)["x"]
    open_weights(tmp_path)["x"].add_(1)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert torch.equal(other, torch.zeros(3))


@pytest.mark.parametrize(
    ("header", "data", "length", "message"),
    [
        (b"{}", b"", 2**63, "9,223,372,036,854,775,808 bytes"),
        (b"{}", b"", 3, "is said to have 3 bytes"),
        (b'{"a": \xff}', b"", None, "not UTF-8"),
        (b"[]", b"", None, "not a JSON object"),
        (b"{", b"", None, "not valid JSON"),
        (b"[" * 200_000, b"", None, "nested too deeply"),
        (b'{"a": 1, "a": 1}', b"", None, "duplicate key 'a'"),
        ({"__metadata__": {"format": 1}}, b"", None, "__metadata__"),
        ({"a": entry(0, 4), "b": entry(0, 4)}, b"0" * 4, None, "overlaps"),
        ({"a": entry(0, 4), "b": entry(8, 12)}, b"0" * 12, None, "hole"),
        ({"a": entry(4, 8)}, b"0" * 8, None, "hole"),
        ({"a": entry(0, 4)}, b"0" * 3, None, "need 4 bytes of data and the file has 3"),
        ({"a": entry(0, 4)}, b"0" * 5, None, "need 4 bytes of data and the file has 5"),
        ({"a": entry(0, 4, dtype="F99")}, b"0" * 4, None, "unknown dtype 'F99'"),
        ({"a": entry(0, 4, dtype="F64")}, b"0" * 4, None, "needs 8 bytes (F64 [1]) and has 4"),
        ({"a": entry(0, 4, [-1])}, b"0" * 4, None, "no usable shape"),
        ({"a": entry(0, 4, [True])}, b"0" * 4, None, "no usable shape"),
        ({"a": entry(0, 4, [2**40, 2**40])}, b"0" * 4, None, "needs"),
        ({"a": 3}, b"", None, "unknown dtype"),
    ],
)
def test_m2_damaged_safetensors(
    tmp_path: Path, header: object, data: bytes, length: int | None, message: str
) -> None:
    write_safetensors(tmp_path / "model.safetensors", header, data, length=length)
    text = refused(tmp_path)
    assert message in text
    assert str(tmp_path / "model.safetensors") in text


def test_m2_a_header_above_the_cap_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 100_000_000))
    os.truncate(path, 100_000_008)
    assert "100,000,000 bytes" in refused(tmp_path)


def test_m2_empty_and_truncated_files(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(30)}, tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    for size in (0, 7, 8, 20, len(whole) - 1):
        (tmp_path / "model.safetensors").write_bytes(whole[:size])
        assert "model.safetensors" in refused(tmp_path)


def test_m2_random_damage_is_an_error_or_numbers_but_never_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"x": torch.zeros(3, 4), "y": torch.ones(5)}, path)
    whole = path.read_bytes()
    generator = random.Random(0)
    refusals = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(damaged) // 2)] = generator.randrange(256)
        path.write_bytes(damaged)
        try:
            assert all(isinstance(tensor, torch.Tensor) for tensor in open_weights(tmp_path).values())
        except CheckpointError:
            refusals += 1
    assert refusals > 100


# --- shards ---------------------------------------------------------------------------------------------


def write_index(folder: Path, weight_map: object, kind: str = "model.safetensors") -> None:
    (folder / f"{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_shards_are_one_mapping(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.ones(3), "c": torch.ones(1)}, tmp_path / "model-2.safetensors")
    weight_map = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}
    write_index(tmp_path, weight_map)
    weights = open_weights(tmp_path)
    assert {name: tuple(weights[name].shape) for name in weights} == {"a": (2,), "b": (3,), "c": (1,)}
    assert torch.equal(weights["b"], torch.ones(3))


@pytest.mark.parametrize(
    ("weight_map", "messages"),
    [
        ({"a": "../one.safetensors"}, ["refused shard: '../one.safetensors'"]),
        ({"a": "/dev/zero"}, ["refused shard"]),
        ({"a": "C:\\x"}, ["refused shard"]),
        (
            {"a": "gone.safetensors", "b": "lost.safetensors"},
            ["'gone.safetensors' is m", "'lost.safetensors' is m"],
        ),
        ({"a": "config.json"}, ["is not a .safetensors file"]),
        ({"a": "one.safetensors", "b": "one.safetensors"}, ["tensor 'b' is not in one.safetensors"]),
        ({"a": "one.safetensors", "b": "two.safetensors"}, ["tensor 'a' is in one.safetensors too"]),
        ({"a": 3}, ["weight_map"]),
        ({}, ["weight_map"]),
        (None, ["weight_map"]),
    ],
)
def test_m3_bad_index(tmp_path: Path, weight_map: object, messages: list[str]) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "one.safetensors")
    save_file({"a": torch.zeros(2), "b": torch.ones(3)}, tmp_path / "two.safetensors")
    (tmp_path / "config.json").write_text("{}")
    write_index(tmp_path, weight_map)
    text = refused(tmp_path)
    for message in messages:
        assert message in text


# --- pytorch_model.bin (M1) -----------------------------------------------------------------------------


class Touch:
    """A pickle of this runs a command when it is read without protection."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_bin_is_read_in_both_formats(tmp_path: Path, zipped: bool) -> None:
    tensors = {"a": torch.arange(4.0), "b": torch.ones(2, 3, dtype=torch.float16)}
    torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    weights = open_weights(tmp_path)
    assert weights.outline("b").shape == (2, 3)
    assert all(torch.equal(weights[name], tensor) for name, tensor in tensors.items())


def test_bin_shards(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "p-1.bin")
    torch.save({"b": torch.ones(1)}, tmp_path / "p-2.bin")
    write_index(tmp_path, {"a": "p-1.bin", "b": "p-2.bin"}, "pytorch_model.bin")
    assert float(open_weights(tmp_path)["b"]) == 1


@pytest.mark.parametrize("zipped", [True, False])
def test_m1_hostile_pickle_has_no_effect(tmp_path: Path, zipped: bool) -> None:
    state = {"a": torch.zeros(1), "b": Touch(tmp_path / "touched")}
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    text = refused(tmp_path)
    assert "asks for more than tensors" in text
    assert "weights_only" not in text
    assert not (tmp_path / "touched").exists()


def rewrite(path: Path, change: Any, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        records = {record.filename: archive.read(record) for record in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, change(name, content))


def test_m1_archives_that_unfold_or_lack_data(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.zeros(1000)}, path)
    rewrite(path, lambda name, content: content, zipfile.ZIP_DEFLATED)
    assert "compressed archive" in refused(tmp_path)
    torch.save({"a": torch.zeros(1000)}, path)
    rewrite(path, lambda name, content: content[:16] if "/data/" in name else content)
    assert "refused pickle" in refused(tmp_path)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([torch.zeros(1)], "a list, not a mapping"),
        ({"a": 1}, "'a' is a int"),
        ({3: torch.zeros(1)}, "not a named tensor"),
        ({"a": torch.zeros(1).expand(10**12)}, "more values than stored bytes"),
        ({"a": torch.eye(3).to_sparse()}, "not a plain tensor"),
        ({"a": torch.empty(3, device="meta")}, "not a plain tensor"),
    ],
)
def test_m1_bin_with_other_things_than_tensors(tmp_path: Path, state: object, message: str) -> None:
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert message in refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04garbage", b"\x80\x02garbage", b"\x80"])
def test_m1_damaged_bin(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    assert "refused pickle" in refused(tmp_path)


def test_m1_old_tar_archive(tmp_path: Path) -> None:
    import tarfile

    (tmp_path / "storages").write_bytes(b"x")
    with tarfile.open(tmp_path / "pytorch_model.bin", "w") as archive:
        archive.add(tmp_path / "storages", "storages")
    assert "tar archive" in refused(tmp_path)


def test_m1_an_unmapped_file_larger_than_memory_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(b"\x80\x02")
    os.truncate(path, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") + 1)
    assert "read as a whole" in refused(tmp_path)


def test_missing_weights_lists_what_was_looked_for(tmp_path: Path) -> None:
    text = refused(tmp_path)
    assert "model.safetensors, model.safetensors.index.json, pytorch_model.bin" in text
    (tmp_path / "tf_model.h5").write_bytes(b"")
    assert "tf_model.h5 is another program's format" in refused(tmp_path)
