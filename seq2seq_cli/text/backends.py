"""The library's own tokenizers: made, looked into, and their failures caught."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, models

from seq2seq_cli.errors import CheckpointError, S2SError


@contextmanager
def rust_errors(where: Path | str, what: str) -> Iterator[None]:
    """Turn any failure of the ``tokenizers`` library into a :class:`CheckpointError` that names the file.

    A panic in Rust arrives as ``PanicException``, which is a ``BaseException``: it is caught here too.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, S2SError):
        raise
    except BaseException as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(
            f"{what}: {reason}", where=str(where), remedy="the file is damaged; fetch it again"
        ) from error


def backend_of(content: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """The backend that a tokenizer.json describes; unigram scores are exactly those of the file.

    The library's own reader of numbers is off in the last digit now and then, so that what is saved and read
    would not be the same tokenizer.
    """
    backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    if isinstance(backend.model, models.Unigram):
        model = content["model"]
        pieces = [(piece, float(score)) for piece, score in model["vocab"]]
        backend.model = models.Unigram(pieces, model.get("unk_id"), model.get("byte_fallback") or False)
    return backend


def template_ids(backend: tokenizers.Tokenizer) -> Iterator[int]:
    """Every id that the post-processor may put around a text; it need not be one of the vocabulary."""
    steps = [] if backend.post_processor is None else [json.loads(backend.post_processor.__getstate__())]
    for step in steps:
        steps += step.get("processors", [])
        for name in ("cls", "sep"):
            yield from step.get(name, [])[1:]
        for special in step.get("special_tokens", {}).values():
            yield from special["ids"]


def described(token: AddedToken) -> dict[str, object]:
    """An added token as tokenizer_config.json has it."""
    names = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return {name: getattr(token, name) for name in names}
