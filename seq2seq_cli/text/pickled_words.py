"""Transformer-XL's pickled vocabulary, read without unpickling it.

The published vocab.pkl (``pickle``) and vocab.bin (``torch.save`` of its first format) hold one dict of plain
values. A pickle is a program for a small stack machine; this one knows the instructions that build plain
values and the few classes that the published files name, and refuses every other. Nothing is imported and
nothing is called: an object is an empty dict, and what would have become its state is thrown away. The files
that transformers' save_pretrained writes hold the tokenizer's helpers beside its words, so those are known.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from pathlib import Path
from typing import Any

from seq2seq_cli.errors import CheckpointError

#: The only classes; all become an empty dict, whatever they are called with.
_CLASSES = {
    *(("collections", "OrderedDict"), ("collections", "Counter"), ("re", "_compile")),
    ("transformers.tokenization_utils", "Trie"),
    ("sacremoses.normalize", "MosesPunctNormalizer"),
    *(("sacremoses.tokenize", "MosesTokenizer"), ("sacremoses.tokenize", "MosesDetokenizer")),
}
_REMEDY = (
    "write its words to a vocab.txt, one a line in the order of their ids (idx2sym), in a process that may "
    "unpickle it, and take the pickle away"
)
_CLASS = object()
#: ``torch.save`` writes a number, a version and a dict about the machine before the object itself.
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_PICKLES_BEFORE = 3
_MOST_INSTRUCTIONS = 2**23


class _RefusedError(Exception):
    pass


def read_pickled_words(path: Path, *, letters: bool = False) -> tuple[list[str], int | None]:
    """The words in the order of their ids, and the unknown word's id where the file says it. Where they are
    single ``letters``, white space is one.

    Raises :class:`CheckpointError` for a pickle that names any other class, or that holds no word list.
    """
    try:
        stream = io.BytesIO(path.read_bytes())
        content = _run(stream)
        if content == _TORCH_MAGIC:
            for _ in range(_PICKLES_BEFORE):
                content = _run(stream)
    except OSError as error:
        raise CheckpointError(f"cannot read: {error.strerror}", where=str(path)) from None
    except _RefusedError as error:
        raise CheckpointError(f"the pickle is refused: it {error}", where=str(path), remedy=_REMEDY) from None
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise CheckpointError("not a pickled vocabulary", where=str(path), remedy=_REMEDY) from None
    words = content.get("idx2sym") if isinstance(content, dict) else None
    if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
        raise CheckpointError("it holds no word list (idx2sym)", where=str(path), remedy=_REMEDY)
    odd = next((word for word in words if word.split() != [word] and not (letters and is_letter(word))), None)
    if odd is not None or len(set(words)) != len(words):
        raise CheckpointError(
            "a word is twice in the list" if odd is None else f"{odd!r} is not one word", where=str(path)
        )
    assert isinstance(content, dict)
    unk = content.get("unk_idx")
    return words, unk if isinstance(unk, int) else None


def is_letter(word: str) -> bool:
    """True for a word of one character that may stand on a line of its own."""
    return len(word) == 1 and word not in "\r\n"


def _run(stream: io.BytesIO) -> Any:
    """The value of the next pickle in the stream."""
    machine = _Machine()
    with warnings.catch_warnings():  # of Python's reader, about escapes in strings
        warnings.simplefilter("ignore")
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                break
            machine.step(opcode.name, argument)
    (value,) = machine.stack
    return value


_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_STORE = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_FETCH = {"GET", "BINGET", "LONG_BINGET"}
_NOTHING = {"PROTO", "FRAME"}


class _Machine:
    """The part of pickle's stack machine that builds dicts, lists, strings and numbers.

    Methods are named after the instructions in ``pickletools``. What must be a dict or a list and is not
    raises AttributeError or TypeError, which the caller takes for damage. Tuples become lists, so that none
    can be a key: nested in themselves, they would take for ever to hash.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memory: dict[int, Any] = {}
        self.items = 0

    def step(self, name: str, argument: Any) -> None:
        """Obey one instruction."""
        self.items += 1
        if self.items > _MOST_INSTRUCTIONS:
            raise _RefusedError(f"has more than {_MOST_INSTRUCTIONS} instructions")
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _STORE:
            self.memory[len(self.memory) if argument is None else argument] = self.stack[-1]
        elif name in _FETCH:
            self.stack.append(self.memory[argument])
        elif name in _TUPLES:
            count = _TUPLES[name]
            self.stack[len(self.stack) - count :] = [self.stack[len(self.stack) - count :]]
        elif name not in _NOTHING:
            method = getattr(self, "_" + name.lower(), None)
            if method is None:
                raise _RefusedError(f"uses the instruction {name}, which no plain vocabulary does")
            method(argument)

    def _mark(self, _: object) -> None:
        self.marks.append(len(self.stack))

    def _above_mark(self) -> list[Any]:
        place = self.marks.pop()
        above = self.stack[place:]
        del self.stack[place:]
        return above

    def _tuple(self, _: object) -> None:
        self.stack.append(self._above_mark())

    _list = _tuple

    def _dict(self, _: object) -> None:
        above = self._above_mark()
        self.stack.append(dict(zip(above[::2], above[1::2], strict=True)))

    def _append(self, _: object) -> None:
        value = self.stack.pop()
        self.stack[-1].append(value)

    def _appends(self, _: object) -> None:
        above = self._above_mark()
        self.stack[-1].extend(above)

    def _setitem(self, _: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1].update({key: value})

    def _setitems(self, _: object) -> None:
        above = self._above_mark()
        self.stack[-1].update(zip(above[::2], above[1::2], strict=True))

    def _global(self, argument: str) -> None:
        self._class(*argument.split(" ", 1))

    def _stack_global(self, _: object) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._class(module, name)

    def _class(self, module: str, name: str) -> None:
        if (module, name) not in _CLASSES:
            raise _RefusedError(f"names {module}.{name}, which no plain vocabulary needs")
        self.stack.append(_CLASS)

    def _reduce(self, _: object) -> None:
        self.stack.pop()
        if self.stack.pop() is not _CLASS:
            raise _RefusedError("calls something that is no class")
        self.stack.append({})

    _newobj = _reduce

    def _build(self, _: object) -> None:
        self.stack.pop()
        if self.stack[-1] != {}:
            raise _RefusedError("gives a state to something that is no object")
