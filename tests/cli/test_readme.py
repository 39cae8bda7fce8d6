"""The Python of the README runs, with small models in the place of those that it names."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import seq2seq_cli
from seq2seq_cli.errors import DataError, UsageError

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_python_of_the_readme_runs(
    pair_folder: Path, stack_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(pair_folder, "minilm")
    shutil.copytree(pair_folder, "runs/boss2sql")
    shutil.copytree(stack_folder, "runs/boss2sql-decoder")
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert tuple(names["logits"].shape[:2]) == (1, 1)  # type: ignore[attr-defined]
    assert names["states"].shape[:2] == names["ids"].shape  # type: ignore[attr-defined]
    (saved,) = re.findall(r'pair\.save\("(.*?)"\)', block)
    combined = re.findall(r"s2s combine .* -o (\S+)", README)
    assert saved not in combined, "the commands above have made that folder already"
    made_by = re.findall(r"# the decoder: .*finetune (\S+)\.yaml", block)
    assert f"runs/{made_by[0]}" in block


def test_python_is_told_of_overwrite_in_python(pair_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("years of work")
    pair = seq2seq_cli.load(pair_folder)
    with pytest.raises(UsageError, match=r"not empty.*overwrite=True") as caught:
        pair.save(tmp_path / "full")
    assert "--" not in str(caught.value)
    pair.save(tmp_path / "full", overwrite=True)


def test_python_is_told_of_truncation_in_python(pair_folder: Path) -> None:
    pair = seq2seq_cli.load(pair_folder)
    with pytest.raises(DataError, match="truncate=True") as caught:
        pair.generate(["red cat " * 200], truncate=False)
    assert "--" not in str(caught.value)
    assert len(pair.generate(["red cat " * 200])) == 1
