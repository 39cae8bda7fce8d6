"""The Python API of s2s, as ``import seq2seq_cli`` shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from seq2seq_cli.checkpoint.bundle import Bundle, load_bundle
from seq2seq_cli.checkpoint.report import LoadReport
from seq2seq_cli.checkpoint.saving import save_bundle
from seq2seq_cli.combiner import Share, Side
from seq2seq_cli.combiner import combine as _combine
from seq2seq_cli.decoding import Hypothesis, generate_ids, resolve_options
from seq2seq_cli.decoding.alignment import Alignment, align
from seq2seq_cli.decoding.engine import TextGenerator, draft_generator
from seq2seq_cli.decoding.generate import naming_draft
from seq2seq_cli.errors import CheckpointError, DataError, S2SError, UsageError
from seq2seq_cli.model import PrefixModel, Seq2Seq, Stack
from seq2seq_cli.text.tokenizer import Tokenizer

__all__ = ["Hypothesis", "Pair", "combine", "generate_ids", "load"]


@dataclass(frozen=True)
class Pair:
    """A loaded model, encoder-decoder or single stack, with its tokenizers (None when the folder has none).

    ``model`` is in eval mode, float32, on the CPU.
    """

    bundle: Bundle

    @property
    def model(self) -> Seq2Seq | Stack:
        """Called with ids and masks: see ``EncoderDecoder.forward`` and ``Stack.forward``."""
        return self.bundle.model

    @property
    def source_tokenizer(self) -> Tokenizer | None:
        """The tokenizer of the texts that come in."""
        return self.bundle.source_tokenizer

    @property
    def target_tokenizer(self) -> Tokenizer | None:
        """The tokenizer of the texts that are written."""
        return self.bundle.target_tokenizer

    @property
    def config(self) -> dict[str, Any]:
        """The config.json that the model has or will be saved with."""
        return self.bundle.config

    @property
    def report(self) -> LoadReport:
        """Which parameters were loaded, which are fresh, what was left unused."""
        return self.bundle.report

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the model folder, whole or not at all. UsageError when ``folder`` is not empty and may not
        be replaced."""
        try:
            save_bundle(self.bundle, Path(folder), overwrite=overwrite)
        except UsageError as error:
            _reword(error, "--overwrite", "overwrite=True")
            raise

    def generate(
        self,
        texts: Sequence[str],
        *,
        prefixes: Sequence[str] | None = None,
        draft: Pair | None = None,
        batch_tokens: int = 4096,
        truncate: bool = True,
        **options: Any,
    ) -> list[list[str]]:
        """What the model writes for each text: a list of ``num_return_sequences`` texts each, the best first.

        Options are those of ``generate_ids``; ``prefixes`` is what the output of each text begins with
        ("" = anything), where that is not the same for all (``prefix``). A text of white space alone gives an
        empty one. ``draft`` is a smaller pair with the same target tokenizer that guesses ``draft_tokens``
        ahead; the texts stay the same.
        """
        if isinstance(texts, str):
            raise TypeError("texts must be a list of texts, not one text")
        if prefixes is not None and len(prefixes) != len(texts):
            raise UsageError(f"{len(prefixes)} prefixes for {len(texts)} texts", remedy="give one each")
        drafter = None
        if draft is not None:
            drafter = draft_generator(
                draft.model,
                source_tokenizer=draft.source_tokenizer,
                target_tokenizer=draft.target_tokenizer,
                control_ids=draft.bundle.control_ids,
                name=draft.bundle.reference,
            )
        generator = TextGenerator(
            self.model,
            source_tokenizer=self.source_tokenizer,
            target_tokenizer=self.target_tokenizer,
            decoding=resolve_options(
                naming_draft(options, draft is not None),
                self.model.generation,
                self.model.special_ids,
                file_of=self.bundle.wish_file,
            ),
            batch_tokens=batch_tokens,
            truncate=truncate,
            control_ids=self.bundle.control_ids,
            draft=drafter,
        )
        try:
            return [list(output.texts) for output in generator.texts(texts, prefixes=prefixes)]
        except DataError as error:
            _reword(error, "--truncation truncate", "truncate=True")
            raise

    def attention(self, source: str, target: str | Sequence[int]) -> Alignment:
        """How much each token of a target saw of each token of its source, in every layer and head.

        A text is read as in training, with the eos id behind it; ids are those of a ``Hypothesis``.
        CheckpointError for a language model, which has no source, and one without tokenizers or special ids;
        DataError where a side is empty or longer than the model takes.
        """
        model, ids = self.model, self.model.special_ids
        left, right = self.source_tokenizer, self.target_tokenizer
        if isinstance(model, Stack) or left is None or right is None or ids.start is None or not ids.eos:
            raise CheckpointError(
                "attention needs an encoder-decoder with tokenizers, start and eos id",
                where=self.bundle.reference,
            )
        read = left.encode([source])[0]
        if isinstance(target, str):
            first = [] if self.bundle.first_id is None else [self.bundle.first_id]
            said = [*first, *right.encode([target], special=False)[0], ids.eos[0]]
        else:
            said = list(target)
        lengths = (len(read), len(said))
        limits = (model.encoder.config.max_positions, model.decoder.config.max_positions)
        if isinstance(model, PrefixModel):
            limits = (limits[0] - len(said), limits[1])
        if min(lengths) < 1 or lengths[0] > limits[0] or lengths[1] > limits[1]:
            what = f"a source of {lengths[0]} tokens and a target of {lengths[1]}"
            raise DataError(f"{what}: the model takes 1 to {limits[0]} and 1 to {limits[1]}")
        return align(model, read, said, start=ids.start, source_tokenizer=left, target_tokenizer=right)


def _reword(error: S2SError, flag: str, keyword: str) -> None:
    """Advise a keyword where the command line would advise a flag."""
    error.findings = tuple(
        replace(each, remedy=each.remedy.replace(flag, keyword)) for each in error.findings
    )


def load(reference: str | Path, *, role: Literal["encoder", "decoder"] | None = None) -> Pair:
    """Load a checkpoint reference.

    Without ``role``: an encoder-decoder folder, or a single stack as language model, which generates the way
    it was published or trained while its logits are causal ones. With it: that one side alone;
    ``role="encoder"`` gives hidden states [B, S, D], ``role="decoder"`` logits [B, T, V], causal to the end.
    CheckpointError when the folder is refused, HubError when the hub does not give it.
    """
    return Pair(load_bundle(str(reference), role=role))


def combine(
    encoder: str | Path,
    decoder: str | Path | None = None,
    *,
    share: Share = "none",
    random_encoder: bool = False,
    random_decoder: bool = False,
    seed: int = 0,
    **settings: Any,
) -> Pair:
    """Join two checkpoints in memory; ``decoder`` left out = the same one on both sides.

    Further keywords override configuration: ``encoder_KEY`` and ``decoder_KEY`` for one side, a bare
    ``KEY`` for both; ``decoder_start_token_id``, ``pad_token_id``, ``eos_token_id`` and ``bos_token_id`` are
    the pair's own.
    """
    left, right = str(encoder), str(encoder if decoder is None else decoder)
    return Pair(
        _combine(
            Side(reference=left, random=random_encoder),
            Side(reference=right, random=random_decoder),
            settings=settings,
            share=share,
            seed=seed,
        )
    )
