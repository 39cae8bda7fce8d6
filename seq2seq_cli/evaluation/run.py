"""Generate on rows and score: what ``s2s evaluate`` does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from seq2seq_cli.checkpoint.bundle import Bundle
from seq2seq_cli.data.batches import plan_validation
from seq2seq_cli.data.dataset import PairDataset
from seq2seq_cli.data.rows import Row
from seq2seq_cli.decoding.engine import TextGenerator
from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.evaluation.metrics import score
from seq2seq_cli.evaluation.predictions import Prediction
from seq2seq_cli.model import Seq2Seq
from seq2seq_cli.model.losses import summed_loss

#: what comes from the model's own probabilities; everything else is scored from texts
LOSS_METRICS = ("loss", "perplexity")
_AT_ONCE = 256


def predict(
    generator: TextGenerator,
    rows: Sequence[Row],
    *,
    tell: Callable[[int], None] | None = None,
) -> list[Prediction]:
    """A prediction for each row; ``tell`` hears how many are done."""
    done: list[Prediction] = []
    for first in range(0, len(rows), _AT_ONCE):
        part = rows[first : first + _AT_ONCE]
        outputs = generator.texts([row.source for row in part])
        done += [
            Prediction(
                source=row.source, prediction=output.texts[0], references=row.references or (row.target,)
            )
            for row, output in zip(part, outputs, strict=True)
        ]
        if tell is not None:
            tell(len(done))
    return done


def scores(
    predictions: Sequence[Prediction], names: Sequence[str], *, english: bool = False
) -> dict[str, Any]:
    """The named text metrics of predictions, with the scorers' signatures."""
    return score(
        [each.prediction for each in predictions],
        [each.references for each in predictions],
        names=[name for name in names if name not in LOSS_METRICS],
        english=english,
    )


@torch.inference_mode()
def loss(
    bundle: Bundle,
    rows: Sequence[Row],
    *,
    prefix: str = "",
    batch_tokens: int = 4096,
    max_source_length: int | None = None,
    max_target_length: int | None = None,
) -> dict[str, float]:
    """Mean negative log-probability of the target tokens (natural logarithm), and e to that power.

    Longer texts are cut to the given numbers of tokens, by default to what the model takes.
    """
    model, source, target = bundle.model, bundle.source_tokenizer, bundle.target_tokenizer
    ids = model.special_ids
    if not isinstance(model, Seq2Seq) or source is None or target is None or ids.start is None or not ids.eos:
        raise CheckpointError("the loss needs an encoder-decoder with tokenizers, start and eos id")
    data = PairDataset(
        rows=rows,
        source_tokenizer=source,
        target_tokenizer=target,
        start_id=ids.start,
        eos_id=ids.eos[0],
        first_id=bundle.first_id,
        max_source_length=max_source_length or model.longest_source,
        max_target_length=max_target_length or model.longest_target,
        source_prefix=prefix,
        keep_empty=True,
    )
    device = next(model.parameters()).device
    total, tokens = 0.0, 0
    for indices in plan_validation(data.lengths, tokens_per_batch=batch_tokens, batch_size=None):
        batch = data.batch(indices).to(device)
        assert batch.source_ids is not None
        states = model.target_states(batch.source_ids, batch.source_mask, batch.target_ids)
        assert model.decoder.head is not None
        total += float(summed_loss(model.decoder.head, states, batch.labels))
        tokens += batch.label_count
    mean = total / max(1, tokens)
    return {"loss": mean, "perplexity": math.exp(min(mean, 700.0))}
