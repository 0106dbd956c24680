"""Runs an engine over one source, from the loop to the exit code. Knows nothing of options."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.lowlevel
import typer

from engine import Config, Engine, EngineError, Script
from engine.capture.compression import HEAD_BYTES, compression_of
from engine.cli.outputs import OutputSink, close_now, identity, open_sinks
from engine.cli.reload import watch_scripts
from engine.cli.signals import Interrupts
from engine.cli.summary import summary_lines
from engine.cli.terminal import Display, ScriptOutput
from engine.dashboard import serve
from engine.dashboard.serving import Listener
from engine.sources import Capture, Captures, Feed, Live, Pipe, Replay
from engine.values.errors import CaptureError, SinkError
from engine.values.sources import Source, name_of
from engine.values.stats import EngineStats

_TICK = 0.1  # seconds between two looks at the counts
_LAST_WORDS = 1.0  # seconds that buffers get when the process is left at once


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What to run. Made by `engine.cli.run` from options that were checked."""

    scripts: tuple[Path, ...]
    source: Source | None
    """None: an inputfilter of the scripts is the source."""
    config: Config
    records: Path | None = None
    db: Path | None = None
    parquet: Path | None = None
    uvloop: bool = True
    verbosity: int = 0
    watch: bool = False
    """Reload backend blocks of scripts that change."""
    serve: str | None = None
    """Where to serve a dashboard."""
    token: str | None = None
    keep_serving: bool = False
    """Serve on when the source is over, until a signal comes."""


def execute(plan: RunPlan) -> int:
    """Run, report, and give the exit code. Raises `EngineError` when the source or the records file is of no use.

    Does not return when worker threads are stuck: then the process ends here, after everything was written.
    """
    listener = _listen(plan)
    gc.freeze()  # what was imported stays: a full collection would hold the loop for 10 ms to find that out
    source = identity(plan.source, plan.scripts)
    sinks: tuple[OutputSink, ...] = ()
    try:
        sinks = open_sinks(records=plan.records, db=plan.db, parquet=plan.parquet, source=source)
        run = SourceRun(plan, sinks, listener)
        with asyncio.Runner(loop_factory=_loop_factory(plan.uvloop)) as runner:
            with run.display:
                runner.run(run.conduct())
            code = run.report()
            # Closing the loop would wait for such threads.
            if run.stats.tasks.stuck_threads:
                _leave_stuck(run.stats.tasks.stuck_threads, code)
    finally:
        if listener is not None:
            listener.close()
        close_now(sinks)
    return code


def _listen(plan: RunPlan) -> Listener | None:
    """What listens for the dashboard, if it is wanted: before anything else is opened. Raises `ServeError`."""
    if plan.serve is None:
        return None
    listener = Listener(plan.serve, token=plan.token)
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what strangers send is no news for the terminal
    serving = listener.serving
    shown = serving.url_with_token if listener.made_token else serving.url
    rest = "" if plan.keep_serving else " (until the run is over: --keep-serving goes on)"
    typer.echo(f"serving {shown}{rest}", err=True)
    return listener


class SourceRun:
    """One run of the command."""

    def __init__(self, plan: RunPlan, sinks: Sequence[OutputSink], listener: Listener | None = None) -> None:
        self._plan = plan
        self._listener = listener
        self._over = False
        self._lingering: anyio.CancelScope | None = None
        self._sinks = sinks
        self._chosen = source = plan.source
        self.display = Display(_title(source), _read_size(source), verbosity=plan.verbosity)
        self.stats = EngineStats()
        self._load_failures = 0
        self._interrupted = 0
        self._reading = False
        self._began = 0.0
        self._last_counts = (self.stats.decode, self.stats.http)
        self._read_seconds = 0.0
        self._drained: anyio.Event | None = None  # set when an interrupted run has no unfinished tasks left
        self._failure: EngineError | None = None

    async def conduct(self) -> None:
        """From loading to the last record. Raises the `EngineError` that ended it."""
        self._source = anyio.CancelScope()
        self._life = anyio.CancelScope()
        self._engine = engine = Engine(self._plan.scripts, config=self._plan.config, sinks=self._sinks)
        with Interrupts(self._stop, self._life.cancel, self._leave) as interrupts:
            self._interrupts = interrupts
            try:
                with self._life:
                    async with engine:
                        self._load_failures = len(engine.load_errors)
                        if self._load_failures < len(self._plan.scripts):
                            async with self._serving(engine):
                                await self._read(engine)
            except* EngineError as group:
                self._failure = self._failure or _first(group)
        self.stats = engine.stats
        self._note(self.stats)
        self._interrupted = interrupts.exit_code
        if (isinstance(self._plan.source, Live) or self._over) and not self._life.cancel_called:
            self._interrupted = 0  # there is no other end
        if self._failure is not None:
            lost = any(each.lost or each.windows_lost for each in self.stats.sinks)
            if lost or (self.stats.decode.packets and isinstance(self._failure, CaptureError)):
                _print(summary_lines(self.stats, self._read_seconds))
            raise self._failure

    def _stop(self) -> None:
        """First signal: what takes time by itself ends as if it had no more, a file that is read is given up."""
        if self._lingering is not None:
            self._lingering.cancel()
        elif self._reading and isinstance(self._chosen, Live | Pipe | Replay | Script):
            self._engine.end_source()
        else:
            self._source.cancel()

    async def _read(self, engine: Engine) -> None:
        """Leaving this cancelled abandons the tasks that are left; they had their time."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, engine)
            if self._plan.watch:
                group.start_soon(watch_scripts, engine, self._plan.scripts)
            self._began = time.perf_counter()
            with self._source:
                try:
                    self._chosen = source = self._choose(engine)
                    self._reading = True
                    await engine.run(source)
                except EngineError as exc:
                    self._failure = exc
            self._note(engine.stats)
            if self._source.cancel_called and self._failure is None:
                await self._drain(engine)
            elif self._plan.keep_serving and self._failure is None and not self._interrupts.exit_code:
                await self._serve_on()
            if engine.stats.tasks.pending:
                self._life.cancel()
            group.cancel_scope.cancel()
        await anyio.lowlevel.checkpoint()  # where an abandoned run ends

    @asynccontextmanager
    async def _serving(self, engine: Engine) -> AsyncIterator[None]:
        """The dashboard, if it is wanted."""
        if self._listener is None:
            yield
            return
        async with serve(engine, self._listener, database=self._plan.db, title=_title(self._chosen)):
            yield

    async def _serve_on(self) -> None:
        """The source is over: serve until a signal comes."""
        assert self._listener is not None
        self.display.line(f"the source is over: still serving {self._listener.serving.url}, Ctrl-C ends it")
        self._over = True
        with anyio.CancelScope() as self._lingering:
            await anyio.sleep_forever()

    def _choose(self, engine: Engine) -> Source:
        """What is read. Raises `EngineError` when no source is named and no script makes packets or alerts."""
        if self._plan.source is not None:
            return self._plan.source
        filters = {plugin.script for plugin in engine.stats.plugins if plugin.block == "inputfilter"}
        found = [script for script in self._plan.scripts if script.name in filters]
        if not found:
            raise EngineError(
                "nothing to read: name a capture with --capture FILE, an interface with --live IFACE, or a script with "
                "an inputfilter"
            )
        if len(found) > 1:
            raise EngineError(f"one source at a time: {len(found)} scripts have an inputfilter")
        return Script(found[0])

    async def _drain(self, engine: Engine) -> None:
        """After an interrupt: wait for unfinished tasks until the deadline."""
        pending, seconds = engine.stats.tasks.pending, self._plan.config.drain_seconds
        if not pending:
            return
        who, them = ("1 task has", "it") if pending == 1 else (f"{pending:,} tasks have", "them")
        self.display.line(f"stopping: {who} up to {seconds:g} s, Ctrl-C again abandons {them}")
        self._drained = anyio.Event()
        with anyio.move_on_after(seconds):
            await self._drained.wait()

    async def _watch(self, engine: Engine) -> None:
        while True:
            await anyio.sleep(_TICK)
            stats = engine.stats
            self._note(stats)
            self.display.show(stats, over=self._over)
            if self._drained is not None and not stats.tasks.pending:
                self._drained.set()

    def _note(self, stats: EngineStats) -> None:
        """Keep the time at which the counts of reading changed last: from then on it was waiting for tasks."""
        counts = (stats.decode, stats.http)
        if counts != self._last_counts:
            self._last_counts = counts
            self._read_seconds = time.perf_counter() - self._began

    def report(self) -> int:
        """Print the summary; the exit code."""
        if self._interrupted:
            typer.echo("interrupted: the counts are of the part that was read", err=True)
        if self._load_failures < len(self._plan.scripts):
            _print(summary_lines(self.stats, self._read_seconds))
        if self._load_failures:
            some = f"{self._load_failures} of {len(self._plan.scripts)} scripts"
            typer.echo(f"{some} did not load", err=True)
        return self._interrupted or (1 if self._load_failures else 0)

    def _leave(self, code: int) -> None:
        """Signal thread: the loop is held, or a third signal came."""
        _leave_now(code, self._save)

    def _save(self) -> None:
        self.display.give_up()
        os.write(2, b"left at once: work that was under way is lost\n")
        self._engine.discard_files()
        close_now(self._sinks)


def _print(lines: Iterable[str]) -> None:
    """Raises `SinkError` when stdout takes no more, but for a reader that went away: that is Typer's to handle."""
    try:
        for line in lines:
            typer.echo(line)
    except BrokenPipeError:
        raise
    except OSError as exc:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what Python still holds would fail again at the end
        raise SinkError("standard output", exc.strerror or str(exc)) from exc


def _leave_stuck(threads: int, code: int) -> None:
    which = "a worker thread is" if threads == 1 else f"{threads} worker threads are"
    typer.echo(f"{which} stuck in a task and left behind", err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    _leave_now(code, ScriptOutput().flush)


def _leave_now(code: int, save: Callable[[], object]) -> None:
    """End the process. What `save` writes may be blocked by the very thing that is left, so it gets limited time."""
    saving = threading.Thread(target=save, daemon=True)
    saving.start()
    saving.join(_LAST_WORDS)
    os._exit(code)


def _first(group: BaseExceptionGroup[EngineError]) -> EngineError:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


def _loop_factory(use_uvloop: bool) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if not use_uvloop:
        return None
    try:
        import uvloop
    except ImportError:  # no wheel for this platform
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _title(source: Source | None) -> str:
    """What the bar says is read."""
    if source is None:
        return "an inputfilter"
    if isinstance(source, Capture | Script):
        return Path(source.path).name
    if isinstance(source, Captures | Replay):
        return Path(source.paths[0]).name if len(source.paths) == 1 else f"{len(source.paths)} captures"
    return name_of(source)


def _read_size(source: Source | None) -> int | None:
    """Bytes of the captures; None when that says little of how many packets they hold."""
    if (
        source is None
        or isinstance(source, Live | Pipe | Script | Feed)
        or (isinstance(source, Replay) and source.loops > 1)
    ):
        return None
    paths = [source.path] if isinstance(source, Capture) else list(source.paths)
    try:
        files = [each for path in map(Path, paths) for each in (path.iterdir() if path.is_dir() else (path,))]
        return None if any(map(_is_compressed, files)) else sum(each.stat().st_size for each in files)
    except OSError:
        return None


def _is_compressed(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return bool(compression_of(file.read(HEAD_BYTES)))
