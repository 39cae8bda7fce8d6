"""W2b: one epoch from raw text to changed weights, each program as its users would run it.

The pairs have the lengths of real ones (questions and SQL: short sources, targets of very unlike lengths) and
made-up words. What counts is real tokens, not padding; both programs see about equally many target tokens a
step, and each run is a process of its own, whose peak memory is read at its end.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Row, in_turn, speedup
from benchmarks.worker import Worker
from benchmarks.workload import IDS, Size, pair_configs, quiet_transformers

#: (source, target) tokens of the training pairs of Advising (Finegan-Dollak et al. 2018), in MiniLM's
#: pieces with [CLS] and [SEP]: 32 pairs at equal steps through the targets' lengths
_LENGTHS = (
    *((9, 28), (11, 39), (13, 44), (14, 68), (14, 72), (13, 76), (14, 83), (16, 91), (13, 105), (13, 111)),
    *((12, 116), (13, 120), (13, 125), (15, 130), (17, 134), (11, 143), (13, 147), (16, 150), (18, 155)),
    *((21, 157), (14, 161), (15, 164), (19, 167), (12, 173), (15, 177), (17, 181), (14, 185), (12, 194)),
    *((15, 208), (13, 227), (15, 266), (17, 398)),
)
_RATE = 5e-5
#: pairs a batch of the peer, as its example is run; s2s gets a budget of as many tokens
_BATCH = 16
_WANTED, _WANTED_MEMORY = 2.5, 0.35
_SPECIAL = ["<start>", "<eos>", "<pad>", "<unk>"]


def epoch_rows(
    folder: Path,
    size: Size,
    *,
    peer: str,
    pairs: int,
    threads: int,
    limits: dict[str, float],
    count: int,
) -> Iterator[Row]:
    """W2b over ``count`` pairs of texts; ``pairs`` measurements of each program."""
    place = folder.with_name("epoch")
    write_epoch(place, size, count)
    answers: dict[str, list[dict[str, Any]]] = {"s2s": [], peer: []}

    def seconds(program: str) -> float:
        with Worker(program, "epoch", "", folder=place, size=size, threads=threads) as worker:
            answers[program].append(worker.measure())
        return float(answers[program][-1]["seconds"])

    left, right = in_turn(partial(seconds, "s2s"), partial(seconds, peer), pairs)
    ours, theirs = (answers[program][0]["made"] for program in ("s2s", peer))
    if ours["tokens"] != theirs["tokens"]:
        raise RuntimeError(f"s2s saw {ours['tokens']} tokens, {peer} {theirs['tokens']}")
    tokens = ours["tokens"]
    cpu = [[one["cpu_seconds"] for one in answers[program]] for program in ("s2s", peer)]
    peaks = [median(one["peak_mb"] for one in answers[program]) for program in ("s2s", peer)]
    yield Row(
        name=f"W2b epoch of {count} pairs",
        unit="tokens/s",
        s2s=tokens / median(left),
        peer=tokens / median(right),
        peer_name=peer,
        speedup=speedup(left, right),
        cpu_speedup=speedup(*cpu),
        wanted=_WANTED,
        limit=tokens / (work_of(size, count) / limits["matmul_gflops"] / 1e9),
        s2s_mb=peaks[0],
        peer_mb=peaks[1],
        wanted_memory=_WANTED_MEMORY,
        same=f"{ours['steps']} and {theirs['steps']} steps, loss {ours['loss']:.2f} and {theirs['loss']:.2f}",
    )


def lengths(count: int) -> list[tuple[int, int]]:
    """(source, target) tokens of ``count`` pairs, in an order drawn by lot (seed 0)."""
    found = [_LENGTHS[number % len(_LENGTHS)] for number in range(count)]
    random.Random(0).shuffle(found)
    return found


def work_of(size: Size, count: int) -> float:
    """Floating-point operations of an epoch: six for each weight and token that meet."""
    sources, targets = (sum(pair[side] for pair in lengths(count)) for side in (0, 1))
    projected = size.num_layers * 2 * size.hidden_size**2  # the source's keys and values
    per_source = size.encoder_weights + projected
    return 6.0 * (sources * per_source + targets * size.token_weights)


def write_epoch(folder: Path, size: Size, count: int) -> None:
    """Write model, tokenizers and texts: every token is a word, which either program splits at blanks."""
    from seq2seq_cli.checkpoint.saving import save_bundle
    from seq2seq_cli.combiner import Side, combine

    encoder, decoder = pair_configs(size)
    words = (_words("s", size.source_vocabulary), _words("t", size.target_vocabulary))
    tokenizers = [_tokenizer(folder / name, each) for name, each in zip(("one", "two"), words, strict=True)]
    pair = combine(
        Side(family="bert", config=encoder, tokenizer=tokenizers[0]),
        Side(family="gpt2", config=decoder, tokenizer=tokenizers[1]),
        settings=IDS,
    )
    save_bundle(pair, folder / "model", overwrite=True)
    draw = random.Random(1)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for longest in lengths(count):
            # the end of a target is a token, too; the words of a source stand alone
            texts = (
                " ".join(draw.choices(each, k=length))
                for each, length in zip(words, (longest[0], longest[1] - 1), strict=True)
            )
            file.write(json.dumps(dict(zip(("source", "target"), texts, strict=True))) + "\n")


def _words(letter: str, vocabulary: int) -> list[str]:
    return [f"{letter}{number}" for number in range(vocabulary - len(_SPECIAL))]


def _tokenizer(folder: Path, words: list[str]) -> Any:
    """A tokenizer of whole words, in a file that both programs read."""
    import tokenizers

    from seq2seq_cli.text.tokenizer import Tokenizer

    vocabulary = {word: number for number, word in enumerate([*_SPECIAL, *words])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(_SPECIAL)
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast"}
    config |= dict(zip(("bos_token", "eos_token", "pad_token", "unk_token"), _SPECIAL, strict=True))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return Tokenizer.from_folder(folder)


def s2s_epoch(folder: Path, mode: str, size: Size) -> Callable[[], Any]:
    """``s2s finetune`` over one epoch, batches by tokens, everything else as it comes."""
    import accelerate

    from seq2seq_cli.recipe import load_recipe
    from seq2seq_cli.training.run import finetune

    assert accelerate.Accelerator  # imports are not part of it
    real = _tokens(folder)[0]
    recipe = s2s_recipe(folder)

    def job() -> dict[str, Any]:
        results = finetune(load_recipe(recipe), overwrite=True)
        return {"tokens": real, "steps": results["steps"], "loss": results["train_loss"]}

    return job


def s2s_recipe(folder: Path) -> Path:
    """One epoch over the pairs in ``folder``, in batches of as many tokens as the peer's have."""
    recipe, (real, rows) = folder / "recipe.yaml", _tokens(folder)
    recipe.write_text(
        f"model: {{encoder: {json.dumps(str(folder / 'model'))}}}\n"
        f"data: {{train: {json.dumps(str(folder / 'train.jsonl'))}}}\n"
        f"training: {{num_train_epochs: 1, learning_rate: {_RATE}, logging_steps: 10,"
        f" tokens_per_batch: {real * _BATCH // rows}}}\n"
        f"output: {json.dumps(str(folder / 'run'))}\n"
    )
    return recipe


def _tokens(folder: Path) -> tuple[int, int]:
    """(real tokens of all pairs, how many pairs)."""
    rows = [json.loads(line) for line in (folder / "train.jsonl").open(encoding="utf-8")]
    return sum(len(row["source"].split()) + len(row["target"].split()) + 1 for row in rows), len(rows)


def transformers_epoch(folder: Path, mode: str, size: Size) -> Callable[[], Any]:
    """Seq2SeqTrainer as its summarization and translation examples set it up: texts made into ids by
    ``datasets``, batches at random, padded to their longest row, the trainer's own defaults."""
    import datasets
    import transformers

    quiet_transformers()
    datasets.disable_progress_bars()
    assert transformers.EncoderDecoderModel  # imported when first named
    assert transformers.Seq2SeqTrainer

    def job() -> dict[str, Any]:
        auto: Any = transformers.AutoTokenizer
        source = auto.from_pretrained(folder / "one")
        target = auto.from_pretrained(folder / "two")
        model = transformers.EncoderDecoderModel.from_pretrained(folder / "model")
        model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id
        model.config.pad_token_id = model.generation_config.pad_token_id
        rows = datasets.load_dataset(
            "json", data_files=str(folder / "train.jsonl"), split="train", cache_dir=str(folder / "cache")
        )

        def encode(batch: dict[str, list[str]]) -> dict[str, Any]:
            inputs = source(batch["source"], truncation=True, max_length=size.source_positions)
            labels = target(batch["target"], truncation=True, max_length=1023)["input_ids"]
            eos = target.eos_token_id
            return {
                "input_ids": inputs["input_ids"],
                "attention_mask": inputs["attention_mask"],
                "labels": [[*ids, eos] for ids in labels],
            }

        rows = rows.map(encode, batched=True, remove_columns=rows.column_names, load_from_cache_file=False)
        arguments = transformers.Seq2SeqTrainingArguments(
            output_dir=str(folder / "trainer"),
            num_train_epochs=1,
            per_device_train_batch_size=_BATCH,
            learning_rate=_RATE,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = transformers.Seq2SeqTrainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            data_collator=transformers.DataCollatorForSeq2Seq(source, model=model, label_pad_token_id=-100),
            processing_class=source,
        )
        result = trainer.train()
        trainer.save_model()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return {
            "tokens": sum(len(row["input_ids"]) + len(row["labels"]) for row in rows),
            "steps": result.global_step,
            "loss": losses[-1] if losses else result.training_loss,
        }

    return job
