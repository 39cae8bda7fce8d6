"""What a folder says about its tokenizer, with every access checked, before anything is built from it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.text.files import check_size, mapping, regular_file, token_id

#: far above any; a comparison is false for what is no number, and for an integer of thousands of digits
_LARGEST_SCORE = 1e30


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A folder's tokenizer files, read and not yet used: ``published`` is tokenizer.json, or None."""

    folder: Path
    config: Mapping[str, Any]  # tokenizer_config.json
    named: dict[str, str | AddedToken]
    published: Mapping[str, Any] | None

    @property
    def json_file(self) -> Path:
        """Where tokenizer.json is, or would be."""
        return self.folder / "tokenizer.json"

    @property
    def config_file(self) -> Path:
        """Where tokenizer_config.json is, or would be."""
        return self.folder / "tokenizer_config.json"

    def token(self, name: str) -> str:
        """The text of a named special token that this family cannot do without."""
        if name not in self.named:
            raise CheckpointError(
                f"the {name} is switched off, but this family's tokenizer needs it",
                where=str(self.config_file),
            )
        return str(self.named[name])

    def optional_flag(self, key: str) -> bool | None:
        """A setting that is true, false or not given."""
        value = self.config.get(key)
        if value is not None and not isinstance(value, bool):
            raise CheckpointError(f"{key} must be true or false, not {value!r}", where=str(self.config_file))
        return value

    def flag(self, key: str, default: bool) -> bool:
        """A setting that is true or false; null means the default, as in the published code."""
        value = self.optional_flag(key)
        return default if value is None else value

    def number(self, key: str, default: int, largest: int) -> int:
        """A setting that counts something, from 0 to ``largest``."""
        value = self.config.get(key)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= largest:
            raise CheckpointError(
                f"{key} must be a number from 0 to {largest}, not {value!r}", where=str(self.config_file)
            )
        return value

    def vocabulary_file(self, name: str) -> Path:
        """The file that the vocabulary comes from: tokenizer.json, else ``name``, checked to be there."""
        return self.json_file if self.published is not None else self.required(name)

    def required(self, name: str) -> Path:
        """The file called ``name``, checked to be there and not too large."""
        file = regular_file(self.folder, name)
        if file is None:
            raise CheckpointError(
                f"{name} is missing", where=str(self.folder), remedy="fetch the folder again"
            )
        check_size(file)
        return file

    def lines(self, name: str) -> list[str]:
        """The lines of a text file; any of the three usual line ends counts. The last may be empty."""
        file = self.required(name)
        try:
            return file.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"not UTF-8 at byte {error.start}", where=str(file)) from None

    # -- inside tokenizer.json -----------------------------------------------------------------------------

    def _model(self) -> Mapping[str, Any]:
        assert self.published is not None
        return mapping(self.published.get("model"), self.json_file)

    def vocabulary(self) -> dict[str, int] | None:
        """token → id of tokenizer.json, or None without one."""
        if self.published is None:
            return None
        vocab = mapping(self._model().get("vocab"), self.json_file)
        return {token: token_id(number, self.json_file) for token, number in vocab.items()}

    def merges(self) -> list[tuple[str, str]]:
        """The merges of tokenizer.json, in either of its two notations."""
        merges = []
        for entry in self._model().get("merges") or []:
            parts = entry.split(" ") if isinstance(entry, str) else entry
            if not (isinstance(parts, list) and len(parts) == 2 and all(isinstance(p, str) for p in parts)):
                raise CheckpointError(f"not a pair of tokens in merges: {entry!r}", where=str(self.json_file))
            merges.append((parts[0], parts[1]))
        return merges

    def scored_pieces(self) -> list[tuple[str, float]]:
        """The (piece, score) pairs of a unigram tokenizer.json; their place is their id."""
        pieces = []
        vocab = self._model().get("vocab")
        for entry in vocab if isinstance(vocab, list) else [vocab]:
            match entry:
                case [str(piece), int() | float() as score] if abs(score) <= _LARGEST_SCORE:
                    pieces.append((piece, float(score)))
                case _:
                    raise CheckpointError(
                        f"not a piece and its score in vocab: {str(entry)[:80]}", where=str(self.json_file)
                    )
        return pieces

    def charsmap(self) -> bytes | None:
        """SentencePiece's compiled normalisation rules in tokenizer.json, or None."""
        assert self.published is not None
        normalizer = self.published.get("normalizer")
        steps = [normalizer]
        if isinstance(normalizer, dict) and normalizer.get("type") == "Sequence":
            steps = normalizer.get("normalizers") or []
        for step in steps if isinstance(steps, list) else []:
            if isinstance(step, dict) and step.get("type") == "Precompiled":
                try:
                    return base64.b64decode(str(step.get("precompiled_charsmap")), validate=True)
                except binascii.Error:
                    raise CheckpointError(
                        "precompiled_charsmap is not base64", where=str(self.json_file)
                    ) from None
        return None
