"""W4: how long a folder of 500 MB takes to load, and how much memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Row, in_turn, speedup
from benchmarks.worker import Worker, peak_megabytes
from benchmarks.workload import FULL, Size, quiet_transformers, write_pair

#: BERT -> GPT-2, whose matrices have to be transposed, and BERT alone, whose file can be used as it is
PAIR = Size(hidden_size=768, num_layers=4)
STACK = Size(hidden_size=768, num_layers=14)
#: most memory that loading may take, as a share of the weights
_WANTED_MEMORY = 1.15


def load_rows(
    folder: Path, size: Size, *, peer: str, pairs: int, threads: int, limits: dict[str, float]
) -> Iterator[Row]:
    """W4: a folder of 500 MB, each time in a new process after the imports; to the model in hand, and to the
    end of a first short pass through it, which cannot be quicker than reading the weights once. Memory is
    what the process grew by, beside the size of the weights.
    """
    quick = size.hidden_size < FULL.hidden_size
    write_stack(folder.with_name("stack"), size if quick else STACK)
    write_pair(folder.with_name("pair"), size if quick else PAIR)
    for mode in ("stack", "stack used", "pair", "pair used"):
        place = folder.with_name(mode.partition(" ")[0])
        answers: dict[str, list[dict[str, Any]]] = {"s2s": [], peer: []}

        def seconds(program: str, mode: str = mode, place: Path = place, into: Any = answers) -> float:
            with Worker(program, "load", mode, folder=place, size=size, threads=threads) as worker:
                into[program].append(worker.measure())
            return float(into[program][-1]["seconds"])

        left, right = in_turn(partial(seconds, "s2s"), partial(seconds, peer), pairs)
        growth = {
            program: median(one["peak_mb"] - one["made"]["before_mb"] for one in found)
            for program, found in answers.items()
        }
        weights = answers["s2s"][0]["made"]["weights_mb"]
        cpu = [[one["cpu_seconds"] for one in answers[program]] for program in ("s2s", peer)]
        yield Row(
            name=f"W4 load {mode}",
            unit="s",
            s2s=median(left),
            peer=median(right),
            peer_name=peer,
            speedup=speedup(left, right),
            cpu_speedup=speedup(*cpu),
            wanted=1.0,
            limit=weights * 2**20 / 1e9 / limits["matvec_gbytes"] if mode.endswith("used") else None,
            s2s_mb=growth["s2s"],
            peer_mb=weights,
            wanted_memory=_WANTED_MEMORY,
            same=f"beside the weights; {peer} {growth[peer]:.0f} MB",
        )


def write_stack(folder: Path, size: Size) -> None:
    """Write the pair's encoder alone, deeper or not, with fresh weights (seed 0)."""
    import torch

    from seq2seq_cli.checkpoint.bundle import Bundle
    from seq2seq_cli.checkpoint.loading import build_stack, stack_config
    from seq2seq_cli.checkpoint.saving import save_bundle
    from seq2seq_cli.families import FAMILIES

    config = {
        "model_type": "bert",
        "vocab_size": size.source_vocabulary,
        "hidden_size": size.hidden_size,
        "num_hidden_layers": size.num_layers,
        "num_attention_heads": size.num_heads,
        "intermediate_size": 4 * size.hidden_size,
    }
    family = FAMILIES["bert"]
    stack, _ = build_stack(
        family,
        stack_config(family, config, "encoder", where="the benchmark"),
        None,
        published=config,
        where="the benchmark",
        generator=torch.Generator().manual_seed(0),
    )
    save_bundle(Bundle(model=stack, config=config, role="encoder"), folder, overwrite=True)


def s2s_load(folder: Path, mode: str, size: Size) -> Callable[[], Any]:
    """Load with s2s."""
    import seq2seq_cli
    import seq2seq_cli.text.published  # imports are not part of it; this one waits for a tokenizer

    load = seq2seq_cli.load
    role: Any = "encoder" if mode.startswith("stack") else None
    return _load(lambda: load(folder, role=role).model, mode)


def transformers_load(folder: Path, mode: str, size: Size) -> Callable[[], Any]:
    """Load with transformers."""
    import transformers

    quiet_transformers()
    if mode.startswith("pair"):
        assert transformers.BertModel  # these are imported when they are first named
        assert transformers.GPT2LMHeadModel
        return _load(lambda: transformers.EncoderDecoderModel.from_pretrained(folder), mode)
    model: Any = transformers.BertModel
    return _load(lambda: model.from_pretrained(folder, add_pooling_layer=False), mode)


def _load(load: Callable[[], Any], mode: str) -> Callable[[], Any]:
    """One load, and in a mode that ends in "used" a pass over eight tokens. Gives the memory (MB) that the
    process held before, and that of the weights."""
    import torch

    def job() -> dict[str, float]:
        before = peak_megabytes()
        model = load()
        if mode.endswith("used"):
            ids = torch.arange(3, 11)[None]
            with torch.inference_mode():
                model(ids) if mode.startswith("stack") else model(ids, None, ids)
        weights = sum(parameter.nbytes for parameter in model.parameters()) / 2**20
        return {"before_mb": before, "weights_mb": weights}

    return job
