"""W1 and W5: the same sources, exactly as many new tokens, by s2s, transformers and CTranslate2."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

from benchmarks.measure import WANTED_MEMORY, Both, Row, beside, speedup
from benchmarks.workload import Size, asked, parts_of, quiet_transformers, sources

Job = Callable[[], list[list[int]]]
#: speed-up that the project wants over each peer (shares of time turned round)
_WANTED: dict[str, dict[str, float]] = {
    "transformers": {"greedy": 3.0, "sampling": 5.0, "beam4": 3.0, "single": 2.5},
    "ctranslate2": {"greedy": 1.5, "beam4": 1.2, "greedy-int8": 1.0, "beam4-int8": 1.0, "single-int8": 1.0},
}
_BYTES = {"float32": 4, "int8": 1}


def s2s_decode(folder: Path, mode: str, size: Size) -> Job:
    """Generate with s2s, as ``s2s generate`` does when nobody asks for scores."""
    import seq2seq_cli
    from seq2seq_cli.decoding.generate import run
    from seq2seq_cli.decoding.options import resolve_options
    from seq2seq_cli.model.quantized import quantize

    strategy, precision = parts_of(mode)
    model = seq2seq_cli.load(folder).model
    if precision == "int8":
        quantize(model)
    ids, mask = sources(size, one=strategy == "single")
    decoding = resolve_options(asked(strategy, size), model.generation, model.special_ids)

    def job() -> list[list[int]]:
        return [found[0].ids for found in run(model, ids, mask, decoding, with_scores=False)]

    return job


def transformers_decode(folder: Path, mode: str, size: Size) -> Job:
    """Generate with transformers."""
    import torch
    import transformers

    quiet_transformers()
    model = transformers.EncoderDecoderModel.from_pretrained(folder).eval()
    strategy, _ = parts_of(mode)
    ids, mask = sources(size, one=strategy == "single")
    options = {"do_sample": False, "num_beams": 1, **asked(strategy, size)}

    def job() -> list[list[int]]:
        torch.manual_seed(0)
        tokens: list[list[int]] = model.generate(ids, attention_mask=mask, **options)[:, 1:].tolist()
        return tokens

    return job


def decode_rows(
    folder: Path,
    size: Size,
    *,
    modes: Sequence[str],
    peer: str,
    pairs: int,
    threads: int,
    limits: dict[str, float],
) -> Iterator[Row]:
    """Greedy, sampling and beams over many sources in tokens/s; one source in ms per token. What transformers
    does in float32 is also compared with what s2s itself does."""
    for mode in modes:
        strategy, precision = parts_of(mode)
        others = [(peer, mode if peer == "ctranslate2" else strategy)]
        if precision == "int8" and peer == "transformers":
            others.append(("s2s", strategy))
        for other, theirs in others:
            both = beside(
                "decode", mode, folder, size, peer=other, peer_mode=theirs, pairs=pairs, threads=threads
            )
            yield _row(mode, both, size, peer=other, exact=mode == theirs, limits=limits)


def _row(mode: str, both: Both, size: Size, *, peer: str, exact: bool, limits: dict[str, float]) -> Row:
    """``exact``: both sides computed with the same precision, so that they should have made the same."""
    strategy, precision = parts_of(mode)
    single = strategy == "single"
    tokens = size.single_new_tokens if single else size.new_tokens
    if any(len(row) != tokens for made in both.made for row in made):
        raise RuntimeError(f"{mode}: not every source got {tokens} new tokens")
    count = 1 if single else size.sources
    equal = sum(a == b for a, b in zip(*both.made, strict=True))
    if single:
        unit, figures = "ms/token", [1000 * median(times) / tokens for times in (both.left, both.right)]
        limit = _BYTES[precision] * size.token_weights / limits["matvec_gbytes"] / 1e6
    else:
        unit, figures = "tokens/s", [count * tokens / median(times) for times in (both.left, both.right)]
        rate = limits["int8_gops" if precision == "int8" else "matmul_gflops"]
        limit = rate * 1e9 / (2 * size.token_weights * asked(strategy, size).get("num_beams", 1))
    name = "W5" if peer == "ctranslate2" else "W1"
    return Row(
        name=f"{name} {mode}{' beside float32' if peer == 's2s' else ''}",
        unit=unit,
        s2s=figures[0],
        peer=figures[1],
        peer_name=peer,
        speedup=speedup(both.left, both.right),
        cpu_speedup=both.cpu_speedup,
        wanted=_WANTED.get(peer, {}).get(mode),
        limit=limit,
        s2s_mb=both.peaks[0],
        peer_mb=both.peaks[1],
        wanted_memory=WANTED_MEMORY if peer == "transformers" else None,
        same=f"{equal} of {count}" if exact and strategy != "sampling" else "",
    )
