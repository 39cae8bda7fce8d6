"""The built wheel, unpacked into a folder of its own, finds its recipes and presets from anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_recipes_and_presets_come_with_the_wheel(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=240)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
        names = archive.namelist()
    assert not [name for name in names if name.startswith(("tests/", "scripts/"))]
    empty = tmp_path / "empty"
    empty.mkdir()

    def s2s(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "seq2seq_cli", *arguments],
            capture_output=True,
            text=True,
            cwd=empty,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    for recipe in (ROOT / "recipes").glob("*.yaml"):
        assert recipe.stem in s2s("recipes", "ls")
    s2s("recipes", "cp", "boss2sql")
    assert (empty / "boss2sql-data/train.jsonl").is_file()
    resolved = s2s("finetune", "boss2sql.yaml", "--dry-run", "--set", "generation.preset=beam")
    assert "num_beams: 4" in resolved
