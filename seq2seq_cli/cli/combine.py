"""``s2s combine``: two checkpoints become one encoder-decoder folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from seq2seq_cli import console
from seq2seq_cli.cli.options import AsJson, Overrides, Overwrite, RecipeFile, Seed, new_app, output_folder
from seq2seq_cli.errors import UsageError

if TYPE_CHECKING:
    from seq2seq_cli.checkpoint.bundle import Bundle

app = new_app()


@app.command()
def combine(
    encoder: Annotated[str | None, typer.Argument(help="Checkpoint that reads the source.")] = None,
    decoder: Annotated[
        str | None, typer.Argument(help="Checkpoint that writes the target; default: ENCODER again.")
    ] = None,
    output: Annotated[Path | None, output_folder("Folder to write; default: ENCODER2DECODER.")] = None,
    settings: Overrides = None,
    random_encoder: Annotated[
        bool, typer.Option("--random-encoder", help="The encoder's architecture with fresh weights.")
    ] = False,
    random_decoder: Annotated[
        bool, typer.Option("--random-decoder", help="The decoder's architecture with fresh weights.")
    ] = False,
    share: Annotated[
        Literal["none", "embeddings", "all"] | None, typer.Option("--share", help="What both sides share.")
    ] = None,
    single_stack: Annotated[
        bool,
        typer.Option(
            "--single-stack", help="One stack that reads the source both ways and writes on behind it."
        ),
    ] = False,
    merge_lora: Annotated[
        Path | None,
        typer.Option(
            "--merge-lora", metavar="ADAPTER", help="Work a LoRA adapter (PEFT's format) into the model."
        ),
    ] = None,
    seed: Seed = 0,
    recipe: RecipeFile = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Join an encoder and a decoder into one checkpoint.

    --set encoder_KEY=VALUE and --set decoder_KEY=VALUE override one side's configuration, a bare KEY both;
    decoder_start_token_id, bos_token_id, eos_token_id and pad_token_id are the pair's own.
    With --merge-lora and no DECODER, ENCODER is the model that the adapter belongs to, as it is.
    """
    if (recipe is None) == (encoder is None):
        raise UsageError(
            "name an encoder, or a recipe with --recipe (not both)", remedy="s2s combine bert gpt2 -o FOLDER"
        )
    if single_stack:
        _refuse_two_sides(decoder, recipe, random_decoder, share)
    if merge_lora is not None and output is None:
        raise UsageError("no folder to write", where="--merge-lora", remedy="add -o FOLDER")
    output = output or Path(_default_name(encoder, decoder, single_stack))
    _refuse_full(output, overwrite)
    if merge_lora is not None and encoder is not None and decoder is None and not single_stack:
        asked = {"--set": settings, "--random-encoder": random_encoder, "--random-decoder": random_decoder}
        _refuse_changes([name for name, given in {**asked, "--share": share}.items() if given])
        _merge(encoder, merge_lora, output, overwrite=overwrite, as_json=as_json)
        return
    given = _settings(settings or [])
    if single_stack:
        from seq2seq_cli.combiner import Side, combine_single

        bundle = combine_single(Side(reference=encoder, random=random_encoder), settings=given, seed=seed)
    elif recipe is not None:
        bundle = _from_recipe(recipe, given, share=share, random=(random_encoder, random_decoder))
    else:
        from seq2seq_cli.combiner import Side
        from seq2seq_cli.combiner import combine as join

        bundle = join(
            Side(reference=encoder, random=random_encoder),
            Side(reference=decoder or encoder, random=random_decoder),
            settings=given,
            share=share or "none",
            seed=seed,
        )
    from seq2seq_cli.checkpoint.saving import save_bundle

    if merge_lora is not None:
        from seq2seq_cli.checkpoint.adapter import apply_adapter

        apply_adapter(bundle, merge_lora)
    save_bundle(bundle, output, overwrite=overwrite)
    report = describe(bundle)
    if as_json:
        print(json.dumps({**report, "output": str(output)}, indent=2))
    else:
        _print(report)
        objective = " and training: {objective: prefix_lm}" if single_stack else ""
        console.say(
            f"wrote {output} · next: s2s finetune RECIPE, with model: {{encoder: {output}}}{objective}"
        )


def _refuse_changes(wrong: list[str]) -> None:
    """An adapter belongs to a model as it is."""
    if wrong:
        what = f"--merge-lora into a model as it is does not go with {', '.join(wrong)}"
        raise UsageError(what, remedy="name DECODER, too, to combine the two and then merge")


def _merge(model: str, adapter: Path, output: Path, *, overwrite: bool, as_json: bool) -> None:
    """One model with an adapter worked in."""
    from seq2seq_cli.checkpoint.adapter import apply_adapter, load_base
    from seq2seq_cli.checkpoint.saving import save_bundle

    bundle = load_base(model)
    done = apply_adapter(bundle, adapter)
    save_bundle(bundle, output, overwrite=overwrite)
    if as_json:
        report = {"updated": list(done.updated), "replaced": list(done.replaced), "output": str(output)}
        print(json.dumps(report, indent=2))
        return
    console.say(f"{adapter}: {len(done.updated)} matrices updated, {len(done.replaced)} parameters replaced")
    console.say(f"wrote {output}")


def _default_name(encoder: str | None, decoder: str | None, single_stack: bool) -> str:
    """bert2gpt2 for ``s2s combine bert gpt2``; a recipe names no folder for its untrained model."""
    if encoder is None:
        raise UsageError("no folder to write", where="s2s combine --recipe", remedy="add -o FOLDER")
    names = [
        reference.rstrip("/").rpartition("/")[2].partition("@")[0]
        for reference in (encoder, decoder or encoder)
    ]
    return f"{names[0]}-single-stack" if single_stack else "2".join(names)


def _refuse_two_sides(decoder: str | None, recipe: Path | None, random: bool, share: str | None) -> None:
    """One stack has no second side, and nothing to share."""
    asked = {
        "DECODER": decoder is not None,
        "--recipe": recipe is not None,
        "--random-decoder": random,
        "--share": share not in (None, "none"),
    }
    wrong = [name for name, given in asked.items() if given]
    if wrong:
        raise UsageError(
            f"--single-stack does not go with {', '.join(wrong)}",
            remedy="name one checkpoint and nothing else",
        )


def _refuse_full(output: Path, overwrite: bool) -> None:
    """Say it before minutes of work, not after."""
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise UsageError(f"{output} is not empty", remedy="choose another folder, or add --overwrite")


def _settings(pairs: list[str]) -> dict[str, Any]:
    """KEY=VALUE pairs with values in YAML: numbers, words, [lists] and {mappings: 1}."""
    from seq2seq_cli.recipe.yaml12 import parse

    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{pair!r} is not KEY=VALUE", where="--set", remedy="as decoder_n_layer=4")
        document = parse(value, f"--set {pair}", positions=False)
        if document.problems:
            raise UsageError(findings=[finding for _, finding in document.problems])
        settings[key.strip().replace("-", "_")] = document.value
    return settings


def _from_recipe(
    path: Path, given: dict[str, Any], *, share: str | None, random: tuple[bool, bool]
) -> Bundle:
    """The pair of a recipe's model section; flags win over it."""
    from seq2seq_cli.cli.running import build_from_recipe
    from seq2seq_cli.recipe import load_recipe

    overrides = [] if share is None else [f"model.share={share}"]
    if any(random):
        sides = [name for name, asked in zip(("encoder", "decoder"), random, strict=True) if asked]
        overrides.append("model.random=" + ("both" if len(sides) == 2 else sides[0]))
    overrides += [f"model.set.{key}={json.dumps(value)}" for key, value in given.items()]
    return build_from_recipe(load_recipe(path, overrides))


def describe(bundle: Bundle) -> dict[str, Any]:
    """What the pair is made of, as ``--json`` prints it."""
    from seq2seq_cli.checkpoint.report import part_of
    from seq2seq_cli.checkpoint.saving import id_settings

    config, ours = bundle.config, bundle.config["s2s"]
    source, target = bundle.source_tokenizer, bundle.target_tokenizer
    same = source is not None and target is not None and source.fingerprint == target.fingerprint
    if ours.get("single_stack"):
        sides = {"stack": {"family": config["model_type"], "from": ours["checkpoint"]}}
    else:
        sides = {
            side: {"family": config[side]["model_type"], "from": ours[side]}
            for side in ("encoder", "decoder")
        }
    return {
        **sides,
        "share": ours.get("share", "none"),
        "parameters": sum(parameter.numel() for parameter in bundle.model.parameters()),
        "parts": bundle.report.by_part(part_of),
        "fresh": sorted(bundle.report.fresh),
        "unused": sorted(bundle.report.unused),
        "tokenizers": {
            "source": None if source is None else {"kind": source.kind, "entries": source.vocab_size},
            "target": None if target is None else {"kind": target.kind, "entries": target.vocab_size},
            "same": same,
        },
        "special_ids": id_settings(bundle.model.special_ids),
    }


def _print(report: dict[str, Any]) -> None:
    """The report on stderr, in plain columns."""
    for side in (name for name in ("encoder", "decoder", "stack") if name in report):
        console.say(f"{side:<8} {report[side]['family']:<8} {report[side]['from']}")
    console.say(f"\n{'part':<16}{'loaded':>14}{'fresh':>14}{'unused':>14}")
    for part, row in report["parts"].items():
        console.say(f"{part:<16}{row['loaded']:>14,}{row['fresh']:>14,}{row['unused']:>14,}")
    console.say(f"{'parameters':<16}{report['parameters']:>14,}   shared: {report['share']}\n")
    for name in ("source", "target"):
        tokenizer = report["tokenizers"][name]
        text = (
            "none in the folder" if tokenizer is None else "{kind}, {entries:,} entries".format(**tokenizer)
        )
        console.say(f"{name} tokenizer: {text}")
    console.say("special ids: " + ", ".join(f"{key}={value}" for key, value in report["special_ids"].items()))
    ids = report["special_ids"]
    if ids["pad_token_id"] == ids["eos_token_id"]:
        console.say("pad is the eos id: harmless, masks come from lengths and not from ids")
    console.say(f"unused: {', '.join(report['unused']) or 'nothing'}", level=1)
    console.say(f"fresh: {', '.join(report['fresh']) or 'nothing'}", level=1)
