"""The command line: one file a command, each imported only when its command runs.

``COMMANDS`` is all that ``s2s --help`` needs. A command's module ``seq2seq_cli/cli/NAME.py`` holds ``app``, a
Typer made by :func:`seq2seq_cli.cli.options.new_app`, and imports no torch at its top.
"""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from seq2seq_cli import console
from seq2seq_cli.errors import Finding, UsageError, nearest

COMMANDS = {
    "combine": "Join an encoder and a decoder into one checkpoint.",
    "finetune": "Train a model as a recipe describes.",
    "generate": "Write one line of text for each line that comes in.",
    "summarize": "Shorten documents of any length.",
    "evaluate": "Generate on a data set and score the result.",
    "recipes": "List, show, copy and check recipes.",
    "models": "List families and aliases, and what each can be.",
    "env": "Show versions and devices, for bug reports.",
}

#: Set by --debug: errors come with their traceback.
debug = False
#: The command line that runs: what other processes are started with.
given: Sequence[str] = ()


def _quiet(value: bool) -> None:
    if value:
        console.verbosity = -1


def _verbose(value: bool) -> None:
    if value:
        console.verbosity = 1


def _debug(value: bool) -> None:
    global debug
    debug = debug or value


def _version(value: bool) -> None:
    if value:
        from seq2seq_cli import __version__

        print(f"s2s {__version__}")
        raise typer.Exit


def _flag(*names: str, callback: Any, text: str, eager: bool = False) -> Any:
    return typer.Option(*names, callback=callback, help=text, is_eager=eager, expose_value=False)


Quiet = Annotated[bool, _flag("-q", "--quiet", callback=_quiet, text="Say nothing but errors.")]
Verbose = Annotated[bool, _flag("-v", "--verbose", callback=_verbose, text="Say more.")]
Debug = Annotated[bool, _flag("--debug", callback=_debug, text="Show tracebacks.", eager=True)]
Version = Annotated[bool, _flag("--version", callback=_version, text="Show the version.", eager=True)]


class NamingGroup(TyperGroup):
    """A group that answers an unknown command with the nearest known one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, known = args[0], self.list_commands(ctx)
        if not name.startswith("-") and name not in known:
            raise UsageError(f"no such command {name!r}", where=ctx.command_path, remedy=nearest(name, known))
        return super().resolve_command(ctx, args)


class LazyGroup(NamingGroup):
    """The group of all commands; lists them from ``COMMANDS`` and imports only the one that runs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"seq2seq_cli.cli.{cmd_name}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        _accept_common(command)
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _common(quiet: Quiet = False, verbose: Verbose = False, debug: Debug = False) -> None:
    """Carries the options that every command takes."""


def _accept_common(command: Any) -> None:
    """Give a command and its subcommands the common options, so that they may stand after its name too."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command()(_common)
    command.params.extend(typer.main.get_command(app).params)
    for below in getattr(command, "commands", {}).values():
        _accept_common(below)


app = typer.Typer(
    name="s2s",
    cls=LazyGroup,
    help="Join any pre-trained encoder to any pre-trained decoder, fine-tune the pair and generate with it.",
    epilog="`s2s COMMAND --help` explains a command. Results go to stdout, everything else to stderr.",
    rich_markup_mode=None,
    add_completion=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        # option names are accepted with - and with _
        "token_normalize_func": lambda name: name.replace("_", "-"),
        "max_content_width": 100,
    },
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
    version: Version = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


def run(arguments: Sequence[str]) -> None:
    """Run one command line (without the program's name). Errors come out as exceptions."""
    global debug, given
    debug, console.verbosity, given = False, 0, list(arguments)
    command = typer.main.get_command(app)
    with command.make_context("s2s", _with_values(arguments)) as context:
        command.invoke(context)


def _with_values(arguments: Sequence[str]) -> list[str]:
    """``--early-stopping`` at the end or before another option means true; a word behind it is its value."""
    done: list[str] = []
    for index, argument in enumerate(arguments):
        if argument == "--":
            return [*done, *arguments[index:]]
        done.append(argument)
        alone = index + 1 == len(arguments) or arguments[index + 1].startswith("-")
        if argument.replace("_", "-") == "--early-stopping" and alone:
            done[-1] += "=true"
    return done


def usage_finding(error: Any, arguments: Sequence[str]) -> Finding:
    """An error of the option parser as one line with the nearest name."""
    context = getattr(error, "ctx", None)
    named = next((argument for argument in arguments if argument in COMMANDS), "")
    where = context.command_path if context else f"s2s {named}".strip()
    remedy = f"see `{where} --help`"
    if hasattr(error, "possibilities"):
        params = context.command.get_params(context) if context else []
        known = [name for param in params for name in (*param.opts, *param.secondary_opts)]
        remedy = _closest(error.option_name, known) or remedy
        return Finding(f"no such option {error.option_name}", where, remedy)
    what = " ".join(error.format_message().split()).rstrip(".")
    names = getattr(getattr(error, "param", None), "opts", ())
    for pattern, must in _WRONG_VALUES:
        found = re.search(pattern, what)
        if found and names:
            given = _value_of(names, arguments)
            what = f"{max(names, key=len)} must be {found.expand(must)}" + (
                f", not {given!r}" if given else ""
            )
            break
    return Finding(what[:1].lower() + what[1:], where, remedy)


#: How the option parser words a wrong value, in its versions, and how we do.
_WRONG_VALUES = (
    (r"valid integer", "a whole number"),
    (r"valid (number|float)", "a number"),
    (r"(?:greater than or equal to |the range x>=)(\S+)", r"at least \1"),
    (r"less than or equal to (\S+)", r"at most \1"),
    (r"is not one of (.*)", r"one of \1"),
)


def _value_of(names: Sequence[str], arguments: Sequence[str]) -> str:
    """What stands behind an option on the command line."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") in names:
            return value if equals else following
    return ""


def _closest(name: str, known: Sequence[str]) -> str:
    """``did you mean ...?`` for an option that is spelt nearly so, or has the same words and more."""
    bare = {each.lstrip("-"): each for each in known}
    asked = name.lstrip("-").replace("_", "-")
    found = difflib.get_close_matches(asked, bare, n=1, cutoff=0.8)
    found = found or [each for each in bare if set(asked.split("-")) < set(each.split("-"))]
    return f"did you mean {bare[found[0]]!r}?" if found else ""
