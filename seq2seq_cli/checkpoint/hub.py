"""Checkpoints on the hub: from the cache without a connection where they are whole, else downloaded.

Only configuration, tokenizer and weight files are fetched, by exact name; never code. huggingface_hub does
the transfer, resumes it, finds the token and keeps it from other hosts; no text of its errors is passed on,
since it quotes addresses that may hold signatures.
"""

from __future__ import annotations

import errno
import fnmatch
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from seq2seq_cli import console
from seq2seq_cli.errors import HubError, ResourceError, S2SError

_TOKENIZERS = (
    *("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "vocab.pkl"),
    "vocab.bin",
)
_SMALL = (
    *_TOKENIZERS,
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
)
#: Weights, the best first: what a folder has one of, and what comes with it.
_WEIGHTS = (
    ("model.safetensors", ""),
    ("model.safetensors.index.json", "model-*.safetensors"),
    ("pytorch_model.bin", ""),
    ("pytorch_model.bin.index.json", "pytorch_model-*.bin"),
)


def fetch(repository: str, revision: str | None, *, suggestion: str = "") -> Path:
    """The local snapshot folder (named after the commit) of ``org/name``, at a branch, tag or commit.

    A snapshot that is whole in the cache is used without any connection. ``suggestion`` is added to the
    error for an unknown name. Raises HubError; ResourceError when the disk is full.
    """
    cached = _cached(repository, revision)
    if cached is not None and _has_tokenizer(cached):
        return cached
    console.say(f"fetching {repository} from the hub")
    try:
        return _download(repository, revision)
    except S2SError:
        raise
    except Exception as error:
        if cached is not None:
            console.warn(
                f"{repository}: using the cached copy, which has no tokenizer; the hub gave no other"
            )
            return cached
        raise _explained(error, repository, revision, suggestion) from error


def wanted_files(names: Iterable[str]) -> list[str]:
    """Those of a repository's files that s2s reads, config.json last. Empty when there are no weights."""
    present = set(names)
    for first, others in _WEIGHTS:
        if first in present:
            weights = [first, *(name for name in present if others and _is_shard(name, others))]
            break
    else:
        return []
    small = {*_SMALL, *(f"decoder_tokenizer/{name}" for name in _SMALL)}
    return [*sorted({*weights, *(small & present)}), "config.json"]


def _is_shard(name: str, pattern: str) -> bool:
    return re.fullmatch(r"[\w.-]+", name) is not None and fnmatch.fnmatchcase(name, pattern)


def _cached(repository: str, revision: str | None) -> Path | None:
    """The snapshot in the cache when it has a configuration and all of its weights."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, "config.json", revision=revision)
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    for first, others in _WEIGHTS:
        if not (folder / first).is_file():
            continue
        if not others:
            return folder
        try:
            shards = set(json.loads((folder / first).read_bytes())["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError):
            return None
        if all(isinstance(name, str) and (folder / name).is_file() for name in shards):
            return folder
    return None


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _TOKENIZERS)


def _download(repository: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, constants, hf_hub_download

    info = HfApi().model_info(repository, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    names = [file.rfilename for file in info.siblings or ()]
    wanted = wanted_files(names)
    if not wanted or "config.json" not in names:
        missing = "config.json" if wanted else "weights (" + ", ".join(name for name, _ in _WEIGHTS) + ")"
        raise HubError(f"this repository has no {missing}", where=repository)
    with _progress():
        # File by file, since snapshot_download lists the repository first, with no time limit on that.
        for name in wanted[:-1]:
            hf_hub_download(repository, name, revision=info.sha)
        # config.json comes last: where it is in the cache, everything else is. Asked for under the branch's
        # name, it also notes in the cache which commit that is.
        folder = Path(hf_hub_download(repository, "config.json", revision=revision)).parent
    if folder.name != info.sha:
        raise HubError("changed while it was fetched", where=repository, remedy="run the command again")
    return folder


@contextmanager
def _progress() -> Iterator[None]:
    """No bars where stderr is not a terminal, unless the user's environment decides about them."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    hide = not (
        console.is_live() or are_progress_bars_disabled() or "HF_HUB_DISABLE_PROGRESS_BARS" in os.environ
    )
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()


def _explained(error: Exception, repository: str, revision: str | None, suggestion: str) -> S2SError:
    """One sentence for what went wrong, and what to do about it."""
    from huggingface_hub import constants, errors

    chain = _causes(error)
    for cause in chain:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return ResourceError(
                f"cannot store the download: {os.strerror(cause.errno)}",
                where=str(constants.HF_HUB_CACHE),
                remedy="free some space, or set HF_HOME to another disk",
            )
    host = urlsplit(constants.ENDPOINT).hostname or "the hub"
    page = f"{host}/{repository}"
    login = "log in with `hf auth login` or set HF_TOKEN"
    get_it = (
        f"with a network run `hf download {repository}{f' --revision {revision}' if revision else ''}`, "
        "or name a local folder"
    )

    def sentence(what: str, remedy: str) -> HubError:
        return HubError(what, where=repository + (f"@{revision}" if revision else ""), remedy=remedy)

    if any(isinstance(cause, errors.GatedRepoError) for cause in chain):
        return sentence("access is gated", f"accept the terms on {page}, then {login}")
    if any(isinstance(cause, errors.RevisionNotFoundError) for cause in chain):
        return sentence("the repository has no such revision", f"see {page} for its branches and tags")
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in chain):
        return sentence("not in the cache, and HF_HUB_OFFLINE forbids to fetch it", get_it)
    status = next(
        (cause.response.status_code for cause in chain if isinstance(cause, errors.HfHubHTTPError)), 0
    )
    if status == 401 and not any(isinstance(cause, errors.RepositoryNotFoundError) for cause in chain):
        return sentence("the hub does not accept this access token (401)", login)
    if status:
        return sentence(*_status(status, suggestion, login))
    if any("Timeout" in type(cause).__name__ for cause in chain):
        return sentence(f"{host} did not answer in time", "try again later, or " + get_it)
    if any(type(cause).__name__ in ("ConnectError", "ConnectionError", "ProxyError") for cause in chain):
        return sentence(f"no local folder, not in the cache, and {host} cannot be reached", get_it)
    if any(isinstance(cause, (ValueError, KeyError, TypeError)) for cause in chain):
        return sentence(f"{host} does not answer like a hub", "check HF_ENDPOINT and any proxy or login page")
    return sentence(f"the download broke off ({type(chain[-1]).__name__})", "run the command again to go on")


def _status(status: int, suggestion: str, login: str) -> tuple[str, str]:
    if status == 401:
        check = f"check the name ({suggestion})" if suggestion else "check the name"
        return (
            "the hub shows nothing of this name without login (401)",
            f"{check}; if it is private, {login}",
        )
    if status == 403:
        return "the hub forbids access with this login (403)", f"ask its owner for access, then {login}"
    if status == 404:
        return "no local folder and no repository on the hub (404)", suggestion or "check the name"
    if status == 429:
        return "the hub answers that there were too many requests (429)", f"wait a little, or {login}"
    return f"the hub has a problem of its own (status {status})", "try again later"


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error and what it was raised from, outermost first."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
