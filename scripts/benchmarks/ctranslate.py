"""W5: CTranslate2 beside s2s, with a BART that its converter understands."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.decoding import Job
from benchmarks.workload import Size, asked, parts_of, quiet_transformers, sources

_SOURCES = "sources.json"


def convert(folder: Path, size: Size, precisions: Collection[str]) -> None:
    """Write the BART in ``folder`` as CTranslate2 has it, once for each of the precisions, with the sources.

    RuntimeError where CTranslate2 is not installed.
    """
    if find_spec("ctranslate2") is None:
        raise RuntimeError("ctranslate2 is not installed · pip install '.[bench]'")
    from ctranslate2.converters import TransformersConverter

    quiet_transformers()
    place = folder.with_name("for-ctranslate2")
    shutil.copytree(folder, place)
    _name_tokens(place, size.target_vocabulary)
    config = json.loads((place / "config.json").read_text())
    # its converter asks for a key that transformers 5 no longer has a default for
    (place / "config.json").write_text(json.dumps({**config, "normalize_before": False}))
    for precision in precisions:
        TransformersConverter(str(place)).convert(str(_converted(folder, precision)), quantization=precision)
    texts = {strategy: _tokens(size, one=strategy == "single") for strategy in ("greedy", "single")}
    (folder / _SOURCES).write_text(json.dumps(texts))


def _converted(folder: Path, precision: str) -> Path:
    return folder.with_name(f"ctranslate2-{precision}")


def _name_tokens(folder: Path, count: int) -> None:
    """Write a tokenizer: CTranslate2 knows tokens by name, so each gets its number for a name."""
    from tokenizers import Tokenizer, models

    words = models.WordLevel({str(number): number for number in range(count)}, unk_token="3")
    Tokenizer(words).save(str(folder / "tokenizer.json"))
    names = {"bos_token": "0", "eos_token": "1", "pad_token": "2", "unk_token": "3"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _tokens(size: Size, *, one: bool) -> list[list[str]]:
    ids, mask = sources(size, one=one)
    return [
        [str(token) for token, visible in zip(row, shown, strict=True) if visible]
        for row, shown in zip(ids.tolist(), mask.tolist(), strict=True)
    ]


def ctranslate2_decode(folder: Path, mode: str, size: Size) -> Job:
    """Generate with CTranslate2, in one batch as the others do. This process never imports torch."""
    import ctranslate2

    strategy, precision = parts_of(mode)
    model: Any = ctranslate2.Translator(
        str(_converted(folder, precision)),
        compute_type=precision,
        intra_threads=int(os.environ["OMP_NUM_THREADS"]),
    )
    texts = json.loads((folder / _SOURCES).read_text())["single" if strategy == "single" else "greedy"]
    options = asked(strategy, size)

    def job() -> list[list[int]]:
        found = model.translate_batch(
            texts,
            beam_size=options.get("num_beams", 1),
            min_decoding_length=options["min_new_tokens"],
            max_decoding_length=options["max_new_tokens"],
        )
        return [[int(token) for token in one.hypotheses[0]] for one in found]

    return job
