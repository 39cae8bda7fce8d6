"""Tokenizers over a SentencePiece unigram vocabulary (Kudo and Richardson 2018): one pipeline a family.

The vocabulary comes from tokenizer.json or from the bare ``.model`` file; normalisation, spaces and template
follow from the family and its settings, as transformers 5 rebuilds them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.text.backends import rust_errors
from seq2seq_cli.text.growth import check_charsmap
from seq2seq_cli.text.parts import Parts
from seq2seq_cli.text.sentencepiece_model import Kind, read_sentencepiece

#: name of the vocabulary file, where there is no tokenizer.json
MODEL_FILES = {
    "albert": "spiece.model",
    "xlnet": "spiece.model",
    "t5": "spiece.model",
    "camembert": "sentencepiece.bpe.model",
    "xlm-roberta": "sentencepiece.bpe.model",
    "mbart": "sentencepiece.bpe.model",
}
FAMILIES = tuple(MODEL_FILES)
#: mBART (Liu et al. 2020) was trained on these, and its vocabulary ends with them.
_LANGUAGES = (
    *("ar_AR", "cs_CZ", "de_DE", "en_XX", "es_XX", "et_EE", "fi_FI", "fr_XX", "gu_IN", "hi_IN", "it_IT"),
    *("ja_XX", "kk_KZ", "ko_KR", "lt_LT", "lv_LV", "my_MM", "ne_NP", "nl_XX", "ro_RO", "ru_RU", "si_LK"),
    *("tr_TR", "vi_VN", "zh_CN"),
)
_UNUSED_SCORE = -100.0
_MOST_EXTRA_IDS = 10_000
Tokens = Sequence[str | AddedToken]
Scored = list[tuple[str, float]]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A vocabulary before the family's own rules: pieces by id, the model's own special ones, its rules."""

    pieces: Scored
    unk_id: int | None  # None from a tokenizer.json, whose own is not looked at
    charsmap: bytes | None
    special: list[AddedToken]


def build_unigram(family: str, parts: Parts) -> tuple[tokenizers.Tokenizer, Tokens, dict[str, int]]:
    """(backend, further special tokens of the family, settings to keep beside those of the folder)."""
    source = _source(family, parts)
    legacy = parts.published is None
    pieces = _with_own_tokens(family, parts, source.pieces) if legacy else source.pieces
    unk_id = _unk_id(family, parts, source, pieces)
    file = parts.vocabulary_file(MODEL_FILES[family])
    with rust_errors(file, "the vocabulary is not accepted"):
        backend = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=unk_id, byte_fallback=False))
        if (normalizer := _normalizer(family, parts, source.charsmap)) is not None:
            backend.normalizer = normalizer
    scheme = "always"
    if family in ("albert", "camembert", "xlm-roberta") and not parts.flag("add_prefix_space", True):
        scheme = "never"
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme),
        ]
    )
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme=scheme)
    kept = {"unk_id": unk_id} if family == "xlnet" else {}
    return backend, _further_tokens(family, parts, source.special if legacy else None), kept


def template(
    family: str, parts: Parts, pair: Callable[[str], tuple[str, int]]
) -> processors.TemplateProcessing:
    """The special tokens around one text and around two; ``pair`` gives a token with its id."""

    def named(name: str) -> tuple[str, int]:
        return pair(parts.token(name))

    if family == "albert":
        cls, sep = named("cls_token"), named("sep_token")
        return _template(f"{cls[0]}:0 $A:0 {sep[0]}:0", f" $B:1 {sep[0]}:1", cls, sep)
    if family == "xlnet":
        sep, cls = named("sep_token"), named("cls_token")
        return processors.TemplateProcessing(
            single=f"$A:0 {sep[0]}:0 {cls[0]}:2",
            pair=f"$A:0 {sep[0]}:0 $B:1 {sep[0]}:1 {cls[0]}:2",
            special_tokens=[sep, cls],
        )
    eos = named("eos_token")
    if family == "t5":
        return _template(f"$A {eos[0]}", f" $B {eos[0]}", eos)
    if family == "mbart":
        language = pair(str(parts.config.get("src_lang") or "en_XX"))
        return processors.TemplateProcessing(
            single=f"$A {eos[0]} {language[0]}",
            pair=f"$A $B {eos[0]} {language[0]}",
            special_tokens=[eos, language],
        )
    bos = named("bos_token")
    return _template(f"{bos[0]} $A {eos[0]}", f" {eos[0]} $B {eos[0]}", bos, eos)


def _template(single: str, rest: str, *special: tuple[str, int]) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(single=single, pair=single + rest, special_tokens=list(special))


# -- the vocabulary ------------------------------------------------------------------------------------------


def _source(family: str, parts: Parts) -> _Source:
    if parts.published is not None:
        return _Source(
            pieces=parts.scored_pieces(),
            unk_id=None,
            charsmap=_checked(family, parts.charsmap(), parts),
            special=[],
        )
    model = read_sentencepiece(parts.required(MODEL_FILES[family]))
    return _Source(
        pieces=[(piece, score) for piece, score, _ in model.pieces],
        unk_id=model.unk_id,
        charsmap=_checked(family, model.charsmap, parts),
        special=[
            AddedToken(piece, normalized=False, special=kind == Kind.CONTROL)
            for piece, _, kind in model.pieces
            if kind in (Kind.CONTROL, Kind.USER_DEFINED)
        ],
    )


def _checked(family: str, charsmap: bytes | None, parts: Parts) -> bytes | None:
    """The compiled rules begin with the size of their first part, which must lie within them."""
    if charsmap is not None and not 4 <= int.from_bytes(charsmap[:4], "little") + 4 <= len(charsmap):
        raise CheckpointError("the compiled rules of normalisation are damaged", where=str(parts.folder))
    if charsmap is not None and parts.published is None:  # those of a tokenizer.json have been looked at
        check_charsmap(charsmap, parts.folder / MODEL_FILES[family])
    return charsmap


def _with_own_tokens(family: str, parts: Parts, pieces: Scored) -> Scored:
    """The pieces of a ``.model`` between the tokens that the family numbers itself.

    fairseq (CamemBERT, XLM-R, mBART) puts its own four in front and leaves the model's out, so that ids
    differ from the model's by a constant; T5 counts its sentinels down from the end.
    """

    def own(*names: str) -> Scored:
        return [(parts.token(name), 0.0) for name in names]

    if family == "camembert":
        (pad,), (unk,), (mask,) = own("pad_token"), own("unk_token"), own("mask_token")
        first = [("<s>NOTUSED", 0.0), pad, ("</s>NOTUSED", 0.0), unk, ("<unk>NOTUSED", _UNUSED_SCORE)]
        return [*first, *pieces[1:], mask]
    if family in ("xlm-roberta", "mbart"):
        languages = [(code, 0.0) for code in _LANGUAGES] if family == "mbart" else []
        first = own("bos_token", "pad_token", "eos_token", "unk_token")
        return [*first, *pieces[3:], *languages, *own("mask_token")]
    if family == "t5":
        count = parts.number("extra_ids", 100, _MOST_EXTRA_IDS)
        return [*pieces, *((f"<extra_id_{i}>", 0.0) for i in reversed(range(count)))]
    return pieces


def _unk_id(family: str, parts: Parts, source: _Source, pieces: Scored) -> int:
    if family == "xlnet":
        return source.unk_id if source.unk_id is not None else parts.number("unk_id", 0, len(pieces) - 1)
    if family == "camembert":
        unk = parts.token("unk_token")
        return next((i for i, (piece, _) in enumerate(pieces) if piece == unk), 0)
    return {"albert": 1, "t5": 2, "xlm-roberta": 3, "mbart": 3}[family]


def _normalizer(family: str, parts: Parts, charsmap: bytes | None) -> normalizers.Normalizer | None:
    compiled = [normalizers.Precompiled(charsmap)] if charsmap is not None else []
    if family not in ("albert", "xlnet"):
        return compiled[0] if compiled and family != "mbart" else None
    steps: list[normalizers.Normalizer] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    # XLNet's keep_accents is in its files, and transformers 5 strips accents all the same.
    if family == "xlnet" or not parts.flag("keep_accents", False):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if parts.flag("do_lower_case", family == "albert"):
        steps.append(normalizers.Lowercase())
    return normalizers.Sequence([*steps, *compiled])


def _further_tokens(family: str, parts: Parts, own: list[AddedToken] | None) -> Tokens:
    """Special tokens without a name that the family has where the folder lists none.

    ``own`` are those of a ``.model`` file, None with a tokenizer.json.
    """
    if family == "mbart":
        return [*_LANGUAGES, *(token for token in own or () if str(token) not in _LANGUAGES)]
    if family == "t5":
        count = parts.number("extra_ids", 100, _MOST_EXTRA_IDS)
        return [*(own or ()), *(f"<extra_id_{i}>" for i in range(count))]
    if own is not None:
        return own
    return {
        "camembert": ["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"],
        "xlnet": ["<eop>", "<eod>"],
    }.get(family, [])
