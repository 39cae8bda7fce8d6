"""Options that several commands take, defined once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from seq2seq_cli.cli import NamingGroup
from seq2seq_cli.errors import UsageError

ModelReference = Annotated[
    str | None,
    typer.Option("-m", "--model", metavar="REF", help="Folder, hub id, alias or pkg:PACKAGE/PATH."),
]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", metavar="FILE", help="Take model and options from a recipe.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a value; may be given again."),
]


def _folder_name(text: str) -> Path:
    """The folder called ``text``. "", as of a variable of the shell that is not set, is none: as a path it
    would be the current folder."""
    if not text:
        raise typer.BadParameter("the name is empty")
    return Path(text)


def output_folder(help: str) -> Any:
    """-o, which names a folder."""
    return typer.Option("-o", "--output", metavar="FOLDER", help=help, parser=_folder_name)


OutputFolder = Annotated[Path | None, output_folder("Folder to write.")]
OutputFile = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FILE", help="File to write; - is stdout.")
]
InputFile = Annotated[
    Path | None, typer.Option("-i", "--input", metavar="FILE", help="File to read; - is stdin.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Jsonl = Annotated[bool, typer.Option("--jsonl", help="Read and write JSON objects, one a line.")]
FieldName = Annotated[
    str | None,
    typer.Option("--field", metavar="NAME", help="With --jsonl: field of the text; default: source."),
]
BatchTokens = Annotated[
    int, typer.Option("--batch-tokens", min=1, metavar="N", help="Padded tokens worked on together.")
]
Processes = Annotated[
    int | None, typer.Option("--num-processes", min=1, metavar="N", help="Start N local processes.")
]
Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, ...")]
Quantize = Annotated[
    Literal["int8"] | None,
    typer.Option("--quantize", help="Round the matrices to eight bits: faster on a CPU, less exact."),
]
Dtype = Annotated[Literal["float32", "bfloat16", "float16"], typer.Option("--dtype", help="Number format.")]
Errors = Annotated[
    Literal["strict", "replace"], typer.Option("--errors", help="What to do on invalid UTF-8.")
]
Truncation = Annotated[
    Literal["truncate", "error"], typer.Option("--truncation", help="What to do with too long a source.")
]
#: options that take any text; those of the others are names
_TEXTS = ("bad_words", "grammar", "prefix", "stop")
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of everything random.")]


def new_app(**settings: Any) -> typer.Typer:
    """The Typer that a command's module holds as ``app``: plain help, no completion options of its own."""
    return typer.Typer(cls=NamingGroup, rich_markup_mode=None, add_completion=False, **settings)


def with_generation_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each key of a recipe's ``generation`` section.

    The command takes a parameter ``generation: dict[str, Any]`` and gets in it the options that were given,
    checked; a wrong value is a UsageError that names the option. Put it below ``@app.command()``.
    """
    from seq2seq_cli.recipe import GenerationSection, generation_section
    from seq2seq_cli.recipe.yaml12 import scalar

    fields = GenerationSection.model_fields

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        given = {name: value for name in fields if (value := values.pop(name)) not in (None, [])}
        if "early_stopping" in given:
            given["early_stopping"] = scalar(given["early_stopping"])
        if "sequence_bias" in given:
            given["sequence_bias"] = dict(map(_bias, given["sequence_bias"]))
        generation_section(given, where=_flag_name)
        command(**values, generation=given)

    own = inspect.signature(command, eval_str=True)
    kept = [each for each in own.parameters.values() if each.name != "generation"]
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=_option(name, field.annotation, str(field.description)),
        )
        for name, field in fields.items()
    ]
    wrapper.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {each.name: each.annotation for each in (*kept, *added)}
    return wrapper


def _flag_name(name: str) -> str:
    return "--" + name.replace("_", "-")


def _bias(text: str) -> tuple[str, float]:
    """A text and its bias from TEXT=X."""
    word, _, bias = text.rpartition("=")
    try:
        return word, float(bias)
    except ValueError:
        raise UsageError(
            f"{text!r} is not TEXT=X", where="--sequence-bias", remedy="write --sequence-bias tea=2.5"
        ) from None


def _option(name: str, annotation: Any, description: str) -> Any:
    text = description[:1].upper() + description[1:] + "."
    if name == "early_stopping":
        return Annotated[str | None, typer.Option(_flag_name(name), metavar="[true|false|never]", help=text)]
    if name == "force_words":
        return _again(str, _flag_name(name), "PHRASE[|...]", text)
    if name == "sequence_bias":
        return _again(str, _flag_name(name), "TEXT=X", text)
    kind = _plain_type(annotation)
    if kind is bool:
        switch = f"{_flag_name(name)}/--no-{name.replace('_', '-')}"
        return Annotated[bool | None, typer.Option(switch, help=text)]
    named = "TEXT" if name in _TEXTS else "REF" if name == "draft_model" else "NAME"
    metavars: dict[Any, str] = {int: "N", float: "X", str: named}
    if get_origin(kind) is list:
        item = _plain_type(get_args(kind)[0])
        return _again(item, _flag_name(name), metavars[item], text)
    if get_origin(kind) is tuple:
        optional: Any = tuple[int, float] | None
        return Annotated[optional, typer.Option(_flag_name(name), metavar="N X", help=text)]
    optional = kind | None
    return Annotated[optional, typer.Option(_flag_name(name), metavar=metavars[kind], help=text)]


def _again(item: Any, flag: str, metavar: str, text: str) -> Any:
    optional: Any = list[item] | None
    return Annotated[optional, typer.Option(flag, metavar=metavar, help=f"{text} May be given again.")]


def _plain_type(annotation: Any) -> Any:
    """The type behind Annotated and Optional."""
    while get_origin(annotation) in (Annotated, Union, UnionType):
        annotation = next(each for each in get_args(annotation) if each is not NoneType)
    return annotation
