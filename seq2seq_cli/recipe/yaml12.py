"""YAML 1.2 with positions: text -> plain Python values and the place of every key and value, and back.

PyYAML scans; the reading of scalars is ours, because PyYAML follows YAML 1.1 (``5e-5`` a string, ``no`` a
boolean, the last of two equal keys wins). Tags, anchors and aliases are refused: a recipe is data.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml import events as ev

from seq2seq_cli.errors import Finding, UsageError

#: Keys and list positions from the top of the document down to a value.
Path = tuple[str | int, ...]

_MAX_DEPTH = 50
_MAX_DIGITS = 300
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)")
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


@dataclass(frozen=True, order=True)
class Place:
    """Where something was written: line and column (from 1) of a file, or only a name when ``line`` is 0."""

    name: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.name}:{self.line}:{self.column}" if self.line else self.name


@dataclass
class Document:
    """The value of a YAML text, the places of its keys and values, and what is wrong with it so far."""

    value: Any = None
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    problems: list[tuple[Place, Finding]] = field(default_factory=list)
    #: paths whose value could not be read and is left out of ``value``
    broken: set[Path] = field(default_factory=set)

    def place(self, path: Path, *, key: bool = False) -> Place:
        """The place of the value at ``path`` (of its key, with ``key``), else of the nearest parent."""
        if key and path in self.keys:
            return self.keys[path]
        while path and path not in self.values:
            path = path[:-1]
        return self.values[path]


def parse(text: str, name: str, *, positions: bool = True) -> Document:
    """Read one YAML document; ``name`` is the file named in places (alone when not ``positions``).

    Faults that leave the rest readable are collected in ``problems``.

    Raises:
        UsageError: the text is not YAML, with all findings up to there.
    """
    reader = _Reader(text, name, positions)
    try:
        reader.document()
    except _StopError as stop:
        reader.refuse(stop.place, stop.what, stop.remedy)
        raise UsageError(findings=[finding for _, finding in reader.result.problems]) from None
    return reader.result


def scalar(text: str) -> object:
    """The value of a plain scalar in the YAML 1.2 core schema. Raises ValueError for numbers too long."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _MAX_DIGITS and _FLOAT.fullmatch(text):
        raise ValueError(f"a number of {len(text)} characters")
    if _INT.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text[2:], 8)
    if _HEX.fullmatch(text):
        return int(text[2:], 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float("-inf") if text.startswith("-") else float("inf")
    return text


class _StopError(Exception):
    """Nothing after this place can be read."""

    def __init__(self, place: Place, what: str, remedy: str = "") -> None:
        self.place, self.what, self.remedy = place, what, remedy
        super().__init__(what)


_DROP = object()


class _Reader:
    def __init__(self, text: str, name: str, positions: bool) -> None:
        self.text, self.name, self.positions = text, name, positions
        self.line_starts = [0, *(found.end() for found in re.finditer(r"\r\n|\r|\n", text))]
        self.events = self._scan()
        self.result = Document()

    def document(self) -> None:
        next(self.events)  # start of the stream
        event = next(self.events)
        self.result.values[()] = self.at(0)
        if isinstance(event, ev.StreamEndEvent):
            return
        self.result.value = self.value(next(self.events), ())
        next(self.events)  # end of the document
        event = next(self.events)
        if not isinstance(event, ev.StreamEndEvent):
            raise _StopError(self.at(_index(event)), "a second YAML document", "keep one document a file")

    def value(self, event: ev.Event, path: Path) -> Any:
        place = self.at(_index(event))
        self.result.values[path] = place
        if len(path) > _MAX_DEPTH:
            raise _StopError(
                place, f"nested more than {_MAX_DEPTH} deep", "a recipe needs a handful of levels"
            )
        if isinstance(event, ev.AliasEvent):
            self.refuse(place, f"alias '*{event.anchor}'", "write the value out: aliases are not allowed")
            return self.drop(path)
        if not isinstance(event, (ev.ScalarEvent, ev.SequenceStartEvent, ev.MappingStartEvent)):
            raise _StopError(place, "not valid YAML")
        fault = self.decoration(event, place)
        value: Any
        if isinstance(event, ev.ScalarEvent):
            value = self.scalar(event, place, path)
        elif isinstance(event, ev.SequenceStartEvent):
            items = (
                self.value(item, (*path, index)) for index, item in enumerate(self.until(ev.SequenceEndEvent))
            )
            value = [item for item in items if item is not _DROP]
        else:
            value = self.mapping(path)
        return self.drop(path) if fault else value

    def decoration(self, event: Any, place: Place) -> bool:
        """Refuse a tag or an anchor on a value; the value is then left out."""
        if event.tag is not None:
            remedy = "remove it: tags are not allowed, text is written in quotes"
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.refuse(place, f"tag {tag!r}", remedy)
        if event.anchor is not None:
            self.refuse(place, f"anchor '&{event.anchor}'", "remove it: anchors are not allowed")
        return event.tag is not None or event.anchor is not None

    def scalar(self, event: ev.ScalarEvent, place: Place, path: Path) -> object:
        if any("\ud800" <= letter <= "\udfff" for letter in event.value):
            self.refuse(place, "half of a surrogate pair", "write the whole character")
            return self.drop(path)
        if event.style is not None:
            return event.value
        try:
            return scalar(event.value)
        except ValueError as error:
            self.refuse(place, str(error), "no setting needs that many digits")
            return self.drop(path)

    def mapping(self, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for event in self.until(ev.MappingEndEvent):
            place = self.at(_index(event))
            key = event.value if isinstance(event, ev.ScalarEvent) else None
            if key is None:
                self.refuse(place, "a key that is not text", "keys are single words")
                self.value(event, (*path, "?"))
                self.value(next(self.events), (*path, "?"))
                continue
            self.decoration(event, place)
            below = (*path, key)
            if key in found or below in self.result.broken:
                first = self.result.keys[below]
                at = f", the first is at {first.line}:{first.column}" if first.line else ""
                self.refuse(place, f"duplicate key {key!r}", f"keep one{at}")
                kept = self.result.values, self.result.keys, self.result.broken
                self.result.values, self.result.keys, self.result.broken = {}, {}, set()
                self.value(next(self.events), below)
                self.result.values, self.result.keys, self.result.broken = kept
                continue
            self.result.keys[below] = place
            value = self.value(next(self.events), below)
            if value is not _DROP:
                found[key] = value
        return found

    def until(self, end: type[ev.Event]) -> Iterator[ev.Event]:
        while not isinstance(event := next(self.events), end):
            yield event

    def drop(self, path: Path) -> object:
        self.result.broken.add(path)
        return _DROP

    def refuse(self, place: Place, what: str, remedy: str = "") -> None:
        self.result.problems.append((place, Finding(what, str(place), remedy)))

    def at(self, index: int) -> Place:
        if not self.positions:
            return Place(self.name)
        line = bisect_right(self.line_starts, index)
        return Place(self.name, line, index - self.line_starts[line - 1] + 1)

    def _scan(self) -> Iterator[ev.Event]:
        """PyYAML's events, its own errors as ours."""
        try:
            yield from yaml.parse(self.text, Loader=yaml.SafeLoader)
        except yaml.reader.ReaderError as error:
            what = f"character U+{ord(self.text[error.position]):04X} is not allowed in YAML"
            raise _StopError(
                self.at(error.position), what, "remove it, or write it as an escape in quotes"
            ) from None
        except yaml.MarkedYAMLError as error:
            raise self._syntax(error) from None
        except (
            ValueError,
            OverflowError,
        ) as error:  # PyYAML on escapes beyond the last character, and the like
            raise _StopError(
                self.at(0), f"not valid YAML: {error}", "look for a wrong escape in quotes"
            ) from None

    def _syntax(self, error: yaml.MarkedYAMLError) -> _StopError:
        mark = error.problem_mark or error.context_mark
        place = self.at(mark.index if mark else 0)
        if mark and self.text[mark.index : mark.index + 1] == "\t":
            return _StopError(place, "a tab where YAML allows only spaces", "indent with spaces")
        parts = [part for part in (error.context, error.problem) if part]
        remedy = "check indentation, colons, brackets and quotes around here"
        return _StopError(
            place, "not valid YAML: " + ", ".join(" ".join(part.split()) for part in parts), remedy
        )


def _index(event: ev.Event) -> int:
    return event.start_mark.index if event.start_mark else 0


class _Dumper(yaml.SafeDumper):
    """Writes what both YAML 1.1 and 1.2 readers understand alike: a text either would misread is quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    # the line separators of YAML 1.1 come back as spaces unless they are written as escapes
    style = '"' if re.search("[\x85\u2028\u2029]", value) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
_CORE = {
    "null": ("null|Null|NULL|~|", "nN~"),
    "int": (f"{_INT.pattern}|{_OCTAL.pattern}|{_HEX.pattern}", "-+0123456789"),
    "float": (f"{_FLOAT.pattern}|{_INFINITE.pattern}", "-+.0123456789"),
}
for _tag, (_pattern, _first) in _CORE.items():
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first))


def dump(value: Mapping[str, Any]) -> str:
    """Write plain values as YAML that :func:`parse` reads back equal."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100_000)
