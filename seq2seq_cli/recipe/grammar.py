"""Grammars that outputs have to follow: where they come from, and whether they can be understood."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seq2seq_cli import resources
from seq2seq_cli.errors import UsageError, nearest

#: kind of grammar -> endings of its files
KINDS = {"regex": (".regex",), "json": (".json",), "lark": (".lark",)}
_LARGEST_FILE = 1 << 20
#: JSON as Python writes it; white space of any length would let a model write nothing else
_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
#: no tokens that follow from the grammar alone: which of several spellings a model takes is its own choice
_OPTIONS = '%llguidance {"no_forcing": true}'
_REMEDY = "regex:PATTERN, json:SCHEMA, lark:RULES, or a file that ends with .regex, .json or .lark"


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """A regular expression, a JSON schema or rules in Lark's notation; where it comes from."""

    kind: str
    text: str
    where: str

    def compiled(self, start: str = "start: @text") -> str:
        """What llguidance reads; ``start`` is what stands around the text. UsageError for a JSON schema
        that is no JSON object."""
        if self.kind == "json":
            inner: dict[str, Any] = {"json_schema": {"x-guidance": _JSON_STYLE, **self._schema()}}
        elif self.kind == "regex":
            inner = {"lark_grammar": f"start: TEXT\nTEXT: /{_without_slashes(self.text)}/"}
        else:
            inner = {"lark_grammar": self.text}
        outer = {"lark_grammar": f"{_OPTIONS}\n{start}"}
        return json.dumps({"grammars": [outer, {"name": "text", **inner}]})

    def _schema(self) -> dict[str, Any]:
        try:
            schema = json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"grammar: the schema is not JSON: {error}", where=self.where) from None
        if not isinstance(schema, dict):
            remedy = 'write an object, as {"type": "object"}'
            raise UsageError("grammar: the schema is not a JSON object", where=self.where, remedy=remedy)
        return schema


def _without_slashes(pattern: str) -> str:
    """A pattern as it stands between slashes."""
    escaped, slashes = [], 0
    for character in pattern:
        escaped.append("\\/" if character == "/" and slashes % 2 == 0 else character)
        slashes = slashes + 1 if character == "\\" else 0
    return "".join(escaped)


def read_grammar(value: str) -> Grammar:
    """The grammar that ``--grammar`` names: KIND:TEXT, a file, or one of ours (configs/grammars).

    UsageError when there is none.
    """
    kind, colon, text = value.partition(":")
    if colon and kind in KINDS:
        return Grammar(kind=kind, text=text, where="")
    path = Path(value)
    if not path.is_file():
        ours = {file.stem: file for file in (resources.folder("configs") / "grammars").glob("*.lark")}
        if value not in ours:
            remedy = nearest(value, ours) if path.suffix == "" and not colon else _REMEDY
            raise UsageError(f"grammar: no file and no grammar named {value!r}", remedy=remedy)
        path = ours[value]
    kind = next((kind for kind, endings in KINDS.items() if path.suffix in endings), "")
    if not kind:
        raise UsageError(f"grammar: what kind {value!r} is cannot be seen", remedy=_REMEDY)
    return Grammar(kind=kind, text=_read(path), where=str(path))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            raise UsageError("grammar: larger than 1 MiB", where=str(path), remedy="is it the right file?")
        text = data.decode("utf-8")
    except OSError as error:
        raise UsageError(f"grammar: cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise UsageError("grammar: not UTF-8 text", where=str(path)) from None
    return text.removesuffix("\n") if path.suffix == ".regex" else text


def check_grammar(value: str) -> Grammar:
    """The grammar, understood. UsageError for one that is not there or has mistakes, and where the package
    llguidance is not installed."""
    grammar = read_grammar(value)
    compiled = grammar.compiled()
    try:
        from llguidance import LLMatcher
    except ImportError:
        remedy = "pip install 's2s[grammar]'"
        raise UsageError("grammar: needs the package llguidance", remedy=remedy) from None
    wrong, messages = LLMatcher.validate_grammar_with_warnings(compiled)
    if wrong:
        what = " ".join(messages[0].split())
        raise UsageError(f"grammar: {what[:300]}", where=grammar.where, remedy=f"a {grammar.kind} grammar?")
    return grammar
