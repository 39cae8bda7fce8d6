"""Model and objective as one module: a batch in, the summed loss out, so that it can be wrapped for DDP."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seq2seq_cli.data.batch import Batch
from seq2seq_cli.errors import UsageError
from seq2seq_cli.model import EncoderDecoder, Seq2Seq, Stack
from seq2seq_cli.model.losses import summed_loss


class TrainingModule(nn.Module):
    """Cross-entropy of ``model`` at the labelled positions of a batch.

    A sequence-to-sequence model learns target given source; a causal Stack the next token (causal_lm); any
    other Stack the hidden tokens (masked_lm). ``smoothing`` is used while training only, so that a
    validation loss is the plain one and its exponential the perplexity.
    """

    def __init__(self, model: Seq2Seq | Stack, *, smoothing: float = 0.0) -> None:
        super().__init__()
        head = (model.decoder if isinstance(model, Seq2Seq) else model).head
        if smoothing and head is not None and head.adds_up:
            raise UsageError(
                "label_smoothing_factor does not go with an adaptive softmax", remedy="set it to 0"
            )
        self.model = model
        self.smoothing = smoothing

    def forward(
        self,
        source_ids: Tensor | None,
        source_mask: Tensor | None,
        target_ids: Tensor,
        target_mask: Tensor | None,
        labels: Tensor,
        source_states: Tensor | None = None,
    ) -> Tensor:
        """Shapes as in ``Batch``; the sum of the losses over the labelled positions, a float32 scalar.
        ``source_states`` [B, S, E]: the encoder's, where they are known."""
        # Targets are padded at the end: behind a causal mask nothing real ever sees the padding, and
        # without a mask of its own attention takes its quick path.
        if isinstance(self.model, Seq2Seq):
            if source_ids is None:
                raise TypeError("a sequence-to-sequence model needs a source")
            stack = self.model.decoder
            if source_states is not None and isinstance(self.model, EncoderDecoder):
                encoded = self.model.encoded(source_states, source_mask)
                states = stack.states(target_ids, encoded=encoded)
            else:
                states = self.model.target_states(source_ids, source_mask, target_ids)
        else:
            stack = self.model
            states = stack.states(target_ids, None if stack.config.causal else target_mask)
        if stack.head is None:
            raise TypeError("a stack without a head has no loss")
        return summed_loss(stack.head, states, labels, smoothing=self.smoothing if self.training else 0.0)


def tensors_of(
    batch: Batch, device: torch.device
) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor, Tensor]:
    """The arguments of TrainingModule, on ``device``."""
    there = batch.to(device)
    return there.source_ids, there.source_mask, there.target_ids, there.target_mask, there.labels


def reached_parameters(loss: Tensor) -> set[int]:
    """The ``id`` of every parameter that ``loss`` depends on, found by walking its graph (no gradients)."""
    reached: set[int] = set()
    seen = set()
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            reached.add(id(variable))
        waiting.extend(before for before, _ in node.next_functions)
    return reached
