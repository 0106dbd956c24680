"""The command `offpath run`: its options, checked before anything is started or overwritten."""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import options
from engine.cli.options import STDIN, check_files, refuse, setting

if TYPE_CHECKING:
    from engine.values.sources import Source


def run(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCRIPT",
            help="Lua scripts to load. Captures may stand here, too; - is standard input.",
            show_default=False,
        ),
    ],
    captures: Annotated[
        list[Path] | None,
        typer.Option(
            "--capture", metavar="FILE", help="pcap or pcapng, also compressed; a folder of them; - . Repeatable."
        ),
    ] = None,
    replay: Annotated[
        float | None,
        typer.Option("--replay", metavar="[SPEED]", help="Keep the pace of the packets, or so many times that."),
    ] = None,
    loop: Annotated[int | None, typer.Option("--loop", metavar="N", help="Replay so many times.")] = None,
    live: Annotated[
        str | None, typer.Option("--live", metavar="IFACE", help="Capture from a network interface (CAP_NET_RAW).")
    ] = None,
    duration: Annotated[
        float | None, typer.Option("--duration", metavar="SECONDS", help="Live: stop after this time.")
    ] = None,
    packets: Annotated[
        int | None, typer.Option("--packets", metavar="N", help="Live: stop after this many packets.")
    ] = None,
    promiscuous: Annotated[
        bool, typer.Option("--promiscuous", help="Live: also packets that are not for this machine.")
    ] = False,
    ring_mb: Annotated[
        int | None, typer.Option("--ring-mb", metavar="N", help="Live: MiB that hold packets until they are read (32).")
    ] = None,
    records: options.Records = None,
    db: options.Database = None,
    parquet: options.Parquet = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", help="Worker threads per plugin that asks for no number.")
    ] = None,
    ramfs: Annotated[
        Path | None, typer.Option("--ramfs", metavar="DIR", help="Put extracted files below this folder.")
    ] = None,
    args: options.Arguments = "",
    settings: options.Settings = None,
    drain: Annotated[
        float, typer.Option("--drain", metavar="SECONDS", help="How long a stop waits for unfinished tasks.")
    ] = 30.0,
    chunk_mb: Annotated[
        int, typer.Option("--chunk-mb", metavar="N", min=1, help="Hand on longer bodies in parts of N MiB.")
    ] = 5,
    store: Annotated[
        Path | None,
        typer.Option("--store", metavar="DIR", help="Write packets below this folder, as scripts choose."),
    ] = None,
    store_mb: Annotated[
        int, typer.Option("--store-size", metavar="MB", min=1, help="Begin another file after so many MB.")
    ] = 100,
    watch: Annotated[
        bool, typer.Option("--watch", help="Reload backend blocks of scripts that change while this runs.")
    ] = False,
    serve: Annotated[
        str | None,
        typer.Option(
            "--serve",
            metavar="[HOST:]PORT",
            help="A page, metrics and questions over HTTP while this runs; 0 picks a port. 127.0.0.1 without a HOST.",
        ),
    ] = None,
    keep_serving: Annotated[
        bool,
        typer.Option("--keep-serving", help="Go on serving when the source is over, until Ctrl-C: its normal end."),
    ] = False,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="TEXT",
            envvar="OFFPATH_TOKEN",
            show_envvar=True,
            help="What who asks must have; made where other machines can reach the address and none is given.",
        ),
    ] = None,
    no_uvloop: Annotated[bool, typer.Option("--no-uvloop", help="Use the event loop of Python.")] = False,
    verbose: options.Verbosity = 0,
) -> None:
    """Run Lua scripts over captures, over the packets of a network interface, or over those that one of them makes.

    Log lines of level WARN and worse go to stderr; what scripts print and, at the end, a summary go to stdout. Ctrl-C
    stops reading and waits for unfinished tasks, a second one abandons them, a third one leaves at once. It is the
    normal end of a live capture.

    --serve ends with the run: a capture that is read in a second is served for that second. With --keep-serving it goes
    on, with all that was counted, until Ctrl-C; then what the run came to is printed. While it serves there are / for
    people, /metrics for Prometheus, /healthz, and with --db the questions of offpath query under /api (/openapi.json).

    \b
    Exit codes: 0    done
                1    a script failed to load (the others ran)
                2    bad usage; a file that can't be read or written
                130  stopped by Ctrl-C (143: by SIGTERM), but for a live capture that had its normal end
    """
    scripts, captures = _sort(paths, captures or [])
    check_files(scripts, captures, records)
    check_files(scripts, captures, db)
    if watch and find_spec("watchfiles") is None:
        refuse("--watch needs the package watchfiles: pip install 'offpath[watch]'")
    if keep_serving and serve is None:
        refuse("--keep-serving goes with --serve")
    if not math.isfinite(drain):
        refuse(f"--drain must be a number of seconds, not {drain}")

    from engine import Config, EngineError
    from engine.cli.runner import RunPlan, execute

    try:
        source = _source(
            captures,
            replay,
            loop,
            live,
            _set(seconds=duration, packets=packets, promiscuous=promiscuous, ring_mb=ring_mb),
        )
        config = Config(
            workers=workers,
            ramfs=ramfs,
            args=args,
            settings=dict(setting(each) for each in settings or ()),
            drain_seconds=drain,
            chunk_bytes=chunk_mb << 20,
            store=store,
            store_mb=store_mb,
        )
        code = execute(
            RunPlan(
                tuple(scripts),
                source,
                config,
                records=records,
                db=db,
                parquet=parquet,
                uvloop=not no_uvloop,
                verbosity=verbose,
                watch=watch,
                serve=serve,
                token=token,
                keep_serving=keep_serving,
            )
        )
    except EngineError as exc:
        refuse(str(exc))
    raise typer.Exit(code)


def _sort(paths: list[Path], captures: list[Path]) -> tuple[list[Path], list[Path]]:
    """Scripts, and captures: those named as such, and what is seen to be one at its first bytes."""
    from engine.capture.source import is_capture

    named = [path for path in paths if path == STDIN or is_capture(path)]
    scripts = [path for path in paths if path not in named]
    if not scripts:
        refuse("no script: name at least one")
    return scripts, named + captures


def _source(
    captures: list[Path], replay: float | None, loop: int | None, live: str | None, limits: dict[str, Any]
) -> Source | None:
    """What is to be read, None for what an inputfilter makes. Raises `ConfigError` for values out of range."""
    from engine.sources import Capture, Captures, Live, Pipe, Replay

    if live is not None:
        if captures or replay is not None or loop is not None:
            refuse("--live goes with no capture file, --replay or --loop")
        return Live(live, **limits)
    if limits:
        refuse(f"--{next(iter(limits)).replace('seconds', 'duration').replace('_', '-')} is for --live")
    if STDIN in captures:
        if len(captures) > 1 or replay is not None or loop is not None:
            refuse("-: standard input goes with no other capture, --replay or --loop")
        if sys.stdin is None:  # its descriptor may be that of another file by now
            refuse("-: standard input is closed")
        if sys.stdin.isatty():
            refuse("-: standard input is a terminal, pipe a capture into it")
        return Pipe()
    if not captures:
        if replay is not None or loop is not None:
            refuse("nothing to replay: name a capture with --capture FILE")
        return None
    if replay is not None:
        return Replay(captures, replay, loops=1 if loop is None else loop)
    if loop is not None:
        refuse("--loop goes with --replay")
    return Capture(captures[0]) if len(captures) == 1 and not captures[0].is_dir() else Captures(captures)


def _set(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None and value is not False}
