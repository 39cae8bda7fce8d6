"""What is measured: the same jobs done by s2s and by its peers, each as its own users would do it.

A job is a function that does one measurement's work and returns what it made, for comparison: the new token
ids of each source, or nothing. Only one program is imported in a process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.ctranslate import ctranslate2_decode
from benchmarks.data import datasets_rows, s2s_rows, s2s_tokenize, tokenizers_tokenize
from benchmarks.decoding import s2s_decode, transformers_decode
from benchmarks.epoch import s2s_epoch, transformers_epoch
from benchmarks.families import s2s_family, transformers_family, write_family
from benchmarks.loading import s2s_load, transformers_load
from benchmarks.products import products
from benchmarks.workload import Size, quiet_transformers, training_batches

Job = Callable[[], Any]
#: AdamW as both use it
_RATE = 5e-5


def s2s_train(folder: Path, mode: str, size: Size) -> Job:
    """Optimizer steps with the training room's own loss and optimizer; the first call gives the loss of the
    first batch without dropout."""
    import torch

    import seq2seq_cli
    from seq2seq_cli.recipe.sections import TrainingSection
    from seq2seq_cli.training.module import TrainingModule
    from seq2seq_cli.training.optimizer import make_optimizer, split_parts

    model = seq2seq_cli.load(folder).model
    for parameter in model.parameters():  # as the training room does: memory of its own, not the file's
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    training = TrainingSection(learning_rate=_RATE)
    module = TrainingModule(model)
    optimizer = make_optimizer(split_parts(model, training), training)
    start = model.special_ids.start or 0

    def loss(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        visible = torch.ones_like(target, dtype=torch.bool)
        shifted = torch.cat([torch.full_like(target[:, :1], start), target[:, :-1]], dim=1)
        total: torch.Tensor = module(source, torch.ones_like(source).bool(), shifted, visible, target)
        return total / target.numel()

    return _steps(module, optimizer, loss, size)


def transformers_train(folder: Path, mode: str, size: Size) -> Job:
    """Optimizer steps with EncoderDecoderModel's own loss; else as ``s2s_train``."""
    import torch

    model = _encoder_decoder(folder)
    # outside of generation the model looks for these in its configuration only
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id
    model.config.pad_token_id = model.generation_config.pad_token_id
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=0.0, fused=True)

    def loss(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        output = model(input_ids=source, attention_mask=torch.ones_like(source), labels=target)
        total: torch.Tensor = output.loss
        return total

    return _steps(model, optimizer, loss, size)


def _steps(module: Any, optimizer: Any, loss: Callable[[Any, Any], Any], size: Size) -> Job:
    import torch

    batches = training_batches(size)
    done = 0

    def job() -> float | None:
        nonlocal done
        if not done:
            done = 1
            module.eval()
            with torch.no_grad():
                return float(loss(*batches[0]))
        module.train()
        for _ in range(size.steps):
            loss(*batches[done % len(batches)]).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done += 1
        return None

    return job


def _encoder_decoder(folder: Path) -> Any:
    import transformers

    quiet_transformers()
    return transformers.EncoderDecoderModel.from_pretrained(folder)


def limits(folder: Path, mode: str, size: Size) -> Job:
    """What the machine gives: matrix product in float32 (GFLOP/s) and in whole numbers of eight bits (GOP/s),
    copy and matrix-vector product (GB/s)."""
    import time

    import torch

    def best(work: Callable[[], Any], repeats: int = 7) -> float:
        times = []
        for _ in range(repeats):
            begun = time.perf_counter()
            work()
            times.append(time.perf_counter() - begun)
        return min(times)

    def job() -> dict[str, float]:
        square = torch.randn(2048, 2048)
        product = torch.empty(2048, 2048)
        whole = torch.randint(-127, 128, (2048, 2048), dtype=torch.int8)
        matrix, vector = torch.randn(50_000, 384), torch.randn(384)
        source = torch.randn(50_000_000)
        copy = torch.empty_like(source)
        return {
            "matmul_gflops": 2 * 2048**3 / best(lambda: torch.mm(square, square, out=product)) / 1e9,
            "int8_gops": 2 * 2048**3 / best(lambda: torch._int_mm(whole, whole.t())) / 1e9,
            "copy_gbytes": 2 * source.nbytes / best(lambda: copy.copy_(source)) / 1e9,
            "matvec_gbytes": matrix.nbytes / best(lambda: matrix @ vector) / 1e9,
        }

    return job


JOBS: dict[tuple[str, str], Callable[[Path, str, Size], Job]] = {
    ("s2s", "decode"): s2s_decode,
    ("s2s", "train"): s2s_train,
    ("s2s", "epoch"): s2s_epoch,
    ("s2s", "load"): s2s_load,
    ("transformers", "decode"): transformers_decode,
    ("transformers", "train"): transformers_train,
    ("transformers", "epoch"): transformers_epoch,
    ("transformers", "load"): transformers_load,
    ("s2s", "family"): s2s_family,
    ("transformers", "family"): transformers_family,
    ("transformers", "write"): write_family,
    ("ctranslate2", "decode"): ctranslate2_decode,
    ("s2s", "tokenize"): s2s_tokenize,
    ("tokenizers", "tokenize"): tokenizers_tokenize,
    ("s2s", "rows"): s2s_rows,
    ("datasets", "rows"): datasets_rows,
    ("machine", "limits"): limits,
    ("machine", "products"): products,
}
