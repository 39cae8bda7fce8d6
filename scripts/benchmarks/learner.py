"""The trainings that ``learning`` compares, each in a process of its own: s2s and Seq2SeqTrainer."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any


def _work(order: dict[str, Any]) -> dict[str, Any]:
    from seq2seq_cli.recipe import load_recipe

    steps = [f"training.max_steps={order['steps']}"] if order["steps"] else []
    recipe = load_recipe(Path(order["recipe"]), [*order["changes"], *steps, f"output={order['out']}"])
    job = {"start": _write_start, "s2s": _train_s2s, "transformers": _train_transformers}[order["job"]]
    return job(recipe, Path(order["out"]))


def _write_start(recipe: Any, out: Path) -> dict[str, Any]:
    """The pair that both programs begin with."""
    from seq2seq_cli.checkpoint.saving import save_bundle
    from seq2seq_cli.data.sources import read_rows
    from seq2seq_cli.training.models import build_model

    rows = read_rows(recipe.data.train, source=recipe.data.source, target=recipe.data.target)
    save_bundle(build_model(recipe, rows), out)
    return {}


def _train_s2s(recipe: Any, out: Path) -> dict[str, Any]:
    from seq2seq_cli.training.run import finetune
    from seq2seq_cli.training.stepper import Stepper

    each, original = [], Stepper.step

    def step(stepper: Stepper, batches: Any) -> Any:
        begun = time.perf_counter()
        result = original(stepper, batches)
        each.append(time.perf_counter() - begun)
        return result

    Stepper.step = step  # type: ignore[method-assign]
    finetune(recipe)
    return _times(each)


def _train_transformers(recipe: Any, out: Path) -> dict[str, Any]:
    """Seq2SeqTrainer from the same folder with the same numbers where it has them; one rate for all."""
    import datasets
    import transformers

    from benchmarks.workload import quiet_transformers

    quiet_transformers()
    datasets.disable_progress_bars()
    start = Path(recipe.model.encoder.checkpoint)
    auto: Any = transformers.AutoTokenizer
    source = auto.from_pretrained(start)
    apart = start / "decoder_tokenizer"
    target = auto.from_pretrained(apart) if apart.is_dir() else source
    model: Any = transformers.EncoderDecoderModel.from_pretrained(start)
    settings = model.generation_config
    model.config.decoder_start_token_id = settings.decoder_start_token_id
    model.config.pad_token_id = settings.pad_token_id
    data, training = recipe.data, recipe.training
    eos = settings.eos_token_id[0] if isinstance(settings.eos_token_id, list) else settings.eos_token_id

    def encode(rows: dict[str, list[str]]) -> dict[str, Any]:
        inputs = source(rows[data.source], truncation=True, max_length=data.max_source_length)
        longest = data.max_target_length - 1
        labels = target(rows[data.target], add_special_tokens=False, truncation=True, max_length=longest)
        return {
            "input_ids": inputs["input_ids"],
            "attention_mask": inputs["attention_mask"],
            "labels": [[*ids, eos] for ids in labels["input_ids"]],
        }

    cache = str(out.with_name("cache"))
    rows = datasets.load_dataset("json", data_files=data.train, split="train", cache_dir=cache)
    rows = rows.map(encode, batched=True, remove_columns=rows.column_names)
    each: list[float] = []

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *given: Any, **named: Any) -> None:
            each.append(-time.perf_counter())

        def on_step_end(self, *given: Any, **named: Any) -> None:
            each[-1] += time.perf_counter()

    trainer = transformers.Seq2SeqTrainer(
        model=model,
        args=transformers.Seq2SeqTrainingArguments(
            output_dir=str(out),
            max_steps=training.max_steps,
            per_device_train_batch_size=training.per_device_train_batch_size,
            learning_rate=training.learning_rate,
            warmup_steps=training.warmup_steps,
            weight_decay=training.weight_decay,
            label_smoothing_factor=training.label_smoothing_factor,
            lr_scheduler_type=training.lr_scheduler_type,
            seed=training.seed,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=rows,
        data_collator=transformers.DataCollatorForSeq2Seq(source, model=model, label_pad_token_id=-100),
        callbacks=[Clock()],
    )
    trainer.train()
    model.save_pretrained(out)
    source.save_pretrained(out)
    if apart.is_dir():
        target.save_pretrained(out / "decoder_tokenizer")
    return _times(each)


def _times(each: Sequence[float]) -> dict[str, Any]:
    """Seconds of all steps, and of one; the first two are not like the others."""
    return {"seconds": sum(each), "step": mean(each[2:] or each)}


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing that a library prints may get among the answers
    print(json.dumps(_work(json.loads(sys.argv[1]))), file=answers, flush=True)
