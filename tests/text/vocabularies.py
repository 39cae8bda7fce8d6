"""Small vocabularies in the published formats of every family, trained on the corpus while a test runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, trainers

from tests.text.corpus import LINES

ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def _lacking(piece: str) -> bool:
    """Whether a published vocabulary of CTRL or XLM lacks this piece although merges make it.

    By the piece alone: the trainer numbers the last letters of words in another order each time.
    """
    return crc32(piece.encode()) % 23 == 0


def _train(backend: Backend, trainer: trainers.Trainer) -> Backend:
    backend.train_from_iterator(LINES, trainer)
    return backend


def wordpiece(folder: Path, *, lowercase: bool = True) -> None:
    """vocab.txt (BERT, DistilBERT, ELECTRA); rare letters are unknown."""
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=1500, special_tokens=special, limit_alphabet=500, show_progress=False
    )
    vocab = _train(backend, trainer).get_vocab()
    (folder / "vocab.txt").write_text(
        "\n".join(sorted(vocab, key=vocab.__getitem__)) + "\n", encoding="utf-8"
    )


def byte_level(folder: Path, special: Sequence[str]) -> None:
    """vocab.json and merges.txt (GPT-2, RoBERTa, BART)."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    _train(backend, trainer).model.save(str(folder))


def _marked_bpe(lowercase: bool) -> tuple[dict[str, int], list[list[str]]]:
    """BPE whose last pieces are marked by </w>: the vocabulary and its merges."""
    backend = Backend(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    if lowercase:
        backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=["<unk>"],
        limit_alphabet=500,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    model = json.loads(_train(backend, trainer).to_str())["model"]
    return model["vocab"], [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]


def _write_bpe(folder: Path, vocab: dict[str, int], merges: list[str], head: str = "") -> None:
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text(head + "\n".join(merges) + "\n", encoding="utf-8")


def gpt(folder: Path) -> None:
    """vocab.json and merges.txt of GPT."""
    vocab, merges = _marked_bpe(lowercase=True)
    _write_bpe(folder, vocab, [" ".join(pair) for pair in merges], head="#version: 0.2\n")


def ctrl(folder: Path) -> None:
    """vocab.json and merges.txt of CTRL: inner pieces end in @@, and some pieces are lacking."""
    vocab, merges = _marked_bpe(lowercase=False)
    names = ["<unk>", "\n"]
    for piece in vocab:
        if piece != "<unk>" and not _lacking(piece):
            names.append(piece.removesuffix("</w>") if piece.endswith("</w>") else piece + "@@")
    ids = {name: place for place, name in enumerate(dict.fromkeys(names))}
    _write_bpe(folder, ids, [" ".join(pair) for pair in merges], head="#version: 0.2\n")


def xlm(folder: Path) -> None:
    """vocab.json and merges.txt of XLM: merges with their frequencies, and some pieces are lacking."""
    vocab, merges = _marked_bpe(lowercase=True)
    names = ["<s>", "</s>", "<pad>", "<unk>", *(f"<special{i}>" for i in range(10))]
    names += [piece for piece in vocab if piece != "<unk>" and not _lacking(piece)]
    lines = [f"{left} {right} {9999 - place}" for place, (left, right) in enumerate(merges)]
    _write_bpe(folder, {name: place for place, name in enumerate(names)}, lines)


def word_list(folder: Path) -> list[str]:
    """vocab.txt of Transformer-XL."""
    from sacremoses import MosesTokenizer

    moses = MosesTokenizer(lang="en")
    counts: Counter[str] = Counter()
    for line in LINES:
        counts.update(moses.tokenize(line, aggressive_dash_splits=True, return_str=False, escape=False))
    words = [
        word for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if count > 1
    ]
    names = list(dict.fromkeys(["<eos>", "<unk>", "<formula>", "@-@", "@,@", "@.@", *words]))[:900]
    (folder / "vocab.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return names


def sentencepiece(folder: Path, name: str, *, lowercase: bool = False, **options: object) -> None:
    """A ``.model`` file as SentencePiece itself trains it; ``options`` are its trainer's."""
    import io

    import sentencepiece as spm

    content = io.BytesIO()
    settings: dict[str, object] = {
        "vocab_size": 1100,
        "character_coverage": 0.98,
        "normalization_rule_name": "nmt_nfkc_cf" if lowercase else "nmt_nfkc",
        "model_type": "unigram",
        "num_threads": 1,
        "minloglevel": 2,
        "hard_vocab_limit": False,
    }
    lines = [line for line in LINES if line.strip() and "\0" not in line]
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=content, **{**settings, **options}
    )
    (folder / name).write_bytes(content.getvalue())


FAIRSEQ = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
SENTENCEPIECE: dict[str, dict[str, object]] = {
    "albert": {
        "lowercase": True,
        "pad_id": 0,
        "unk_id": 1,
        "bos_id": -1,
        "eos_id": -1,
        "control_symbols": "[CLS],[SEP],[MASK]",
        "user_defined_symbols": "(,),–,£,€",
    },
    "xlnet": {
        "unk_id": 0,
        "bos_id": 1,
        "eos_id": 2,
        "pad_id": -1,
        "control_symbols": "<cls>,<sep>,<pad>,<mask>,<eod>",
        "user_defined_symbols": "<eop>,.,(,),–,£,€",
    },
    "t5": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "camembert": FAIRSEQ,
    "xlm-roberta": FAIRSEQ,
    "mbart": {**FAIRSEQ, "control_symbols": "<odd>", "user_defined_symbols": "(,),jumps"},
}
FILE = dict.fromkeys(("albert", "xlnet", "t5"), "spiece.model") | dict.fromkeys(
    ("camembert", "xlm-roberta", "mbart"), "sentencepiece.bpe.model"
)


def publish(model_type: str, folder: Path) -> Path:
    """The tokenizer files of a family, as it is published without a tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    if model_type in SENTENCEPIECE:
        sentencepiece(folder, FILE[model_type], **SENTENCEPIECE[model_type])
    elif model_type in ("bert", "distilbert", "electra"):
        wordpiece(folder)
    elif model_type in ("gpt2", "roberta", "bart"):
        byte_level(folder, ["<|endoftext|>"] if model_type == "gpt2" else ROBERTA)
    else:
        {"openai-gpt": gpt, "ctrl": ctrl, "xlm": xlm}[model_type](folder)
    return folder
