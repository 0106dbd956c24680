"""The command `offpath`. Importing this starts nothing and loads no engine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from engine.cli.query import query
from engine.cli.run import run
from engine.cli.simulate import simulate
from engine.cli.synth import synth


class OneLineErrors(TyperGroup):
    """Says what is wrong with a command line in one line, without the usage around it."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """As in the base class, but for how errors are shown."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except typer.Abort:
            sys.exit(1)
        except Exception as exc:
            # The class has moved between versions of Typer.
            describe = getattr(exc, "format_message", None)
            if describe is None:
                raise
            context = getattr(exc, "ctx", None)
            command = context.command_path if context is not None else "offpath"
            typer.echo(f"{command}: {' '.join(describe().split())}", err=True)
            sys.exit(getattr(exc, "exit_code", 2))
        sys.exit(code if isinstance(code, int) else 0)


class RunCommand(TyperCommand):
    """Lets `--replay` stand without a speed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As in the base class."""
        return super().parse_args(ctx, _with_speed(args))


def _with_speed(args: list[str]) -> list[str]:
    given: list[str] = []
    for at, arg in enumerate(args):
        if arg == "--":
            return given + args[at:]
        bare = arg == "--replay" and not _is_number(args[at + 1] if at + 1 < len(args) else "")
        given.append("--replay=1" if bare else arg)
    return given


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


app = typer.Typer(
    name="offpath",
    cls=OneLineErrors,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Click cuts the first sentence of a description off where the list of commands has no room for it.
app.command("run", cls=RunCommand, short_help="Run scripts over captures or a network interface.")(run)
app.command("query", short_help="Ask a database that `offpath run --db` wrote.")(query)
app.command("simulate", short_help="Run scripts in virtual time, seed by seed.")(simulate)
app.command("synth")(synth)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"offpath {version('offpath')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def offpath(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """An event engine scripted in Lua: run Trisul LUA scripts over captures."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Entry point of the command."""
    app(prog_name="offpath")
