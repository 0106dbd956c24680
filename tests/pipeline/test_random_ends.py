"""Plugins at all kinds of work, unloaded, reloaded, cancelled or left at any moment: nothing is lost, and nothing left.

Moments are numbers of records, of settled tasks or of turns of the loop, not times.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import uvloop
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from engine import Config, Engine, EngineError
from engine.offload import TaskQueue
from engine.values.records import Log, Record
from engine.values.stats import AsyncStats
from tests.offload.rig import closes
from tests.processes import nothing_left
from tests.scripts import assert_counts_close, on_event, run_alone, write
from tests.support import DEADLINE

# Every task of Lua code answers or fails, and has callbacks for both.
BEFORE = """
local function pause(microseconds)
  local ffi = require("ffi")
  pcall(ffi.cdef, "int usleep(unsigned);")
  ffi.C.usleep(microseconds)
end
local function quick(data) return data end
local function mixed(data)
  if data == "20" then pause(4000) end
  return data
end
local function slow(data) pause(3000) return data end
local function fail(data) error("meant to fail") end
local function late(data) pause(40000) return data end

local called = { tasks = 0, operations = 0, refused = 0, results = 0, failures = 0 }
local unloaded = false
local function note(kind)
  if unloaded then T.logerror("called after onunload: " .. kind) end
  called[kind] = called[kind] + 1
  T.loginfo(kind)
end
local function admitted(kind, _, why)
  if why then kind = "refused" end
  called[kind] = called[kind] + 1
end
local schedule
local function result(engine, data, answer)
  note("results")
  if answer ~= data then T.logerror("another's answer: " .. answer) end
  local left = tonumber(data:match("^again (%d+)"))
  if left and left > 0 then schedule(quick, "again " .. left - 1) end
end
local function failure(engine, data, message) note("failures") end
function schedule(work, data, timeout)
  admitted("tasks", T.async:schedule{
    onexecute = work, onresult = result, onerror = failure, data = data, timeout = timeout })
end
local function goodbye()
  local line = {}
  for _, kind in ipairs{ "tasks", "operations", "refused", "results", "failures" } do line[#line + 1] = called[kind] end
  T.loginfo("goodbye " .. table.concat(line, " "))
end
"""

# An event is a folder and items, each a kind and a number.
HOOK = """
local folder, items = event:match("^(.-) (.*)$")
for kind, number in items:gmatch("(%a+)(%d+)") do
  number = tonumber(number)
  if kind == "quick" then for i = 1, number do schedule(quick, tostring(i)) end end
  if kind == "mixed" then for i = 1, number do schedule(mixed, tostring(i)) end end
  if kind == "slow" then for i = 1, number do schedule(slow, tostring(i)) end end
  if kind == "fail" then for i = 1, number do schedule(fail, tostring(i)) end end
  if kind == "again" then schedule(quick, "again " .. number) end
  if kind == "timeout" then schedule(late, "late", 0.004) end
  if kind == "raise" then error("meant to raise") end
  local source = folder .. "/../source" .. number % 3
  if kind == "copy" then admitted("operations", T.async:copy(source, folder .. "/copy" .. number)) end
  if kind == "cat" then admitted("operations", T.async:cat(source, folder .. "/cat" .. number % 2)) end
  if kind == "missing" then admitted("operations", T.async:copy(folder .. "/absent", folder .. "/copy" .. number)) end
  if kind == "rm" then
    for _, name in ipairs{ "copy", "cat", "buffer" } do
      admitted("operations", T.async:rm(folder .. "/" .. name .. number))
    end
  end
  if kind == "buffer" then
    for i = 1, number do admitted("operations", T.async:copybuffer("<" .. i .. ">", folder .. "/buffer" .. i % 2)) end
  end
end
"""

# What comes so late is abandoned or, after `unload`, done without its callback.
ONUNLOAD = """
onunload = function()
  schedule(quick, "last words")
  admitted("operations", T.async:copybuffer("<0>", "FOLDER/buffer0"))
  unloaded = true
  goodbye()
end
"""

SOURCES = [b"a" * 100, b"b" * 300_000, b"c" * (9 << 20)]

MEANT = re.compile(
    r"event_monitor\.onexecute: (work|other)\.lua:\d+: meant to fail"
    r"|event_monitor\.onexecute: timeout"
    r"|event_monitor\.onevent: (work|other)\.lua:\d+: meant to raise"
    r"|T\.async:copy: \S*/absent -> \S*: No such file or directory"
)


class OwnError(Exception):
    pass


# ---- what is drawn

_ITEMS = st.one_of(
    st.builds("{}{}".format, st.sampled_from(["quick", "mixed"]), st.integers(1, 400)),
    st.builds("{}{}".format, st.sampled_from(["slow", "fail", "again", "copy", "cat", "rm"]), st.integers(0, 6)),
    st.builds("buffer{}".format, st.integers(1, 60)),
    st.sampled_from(["timeout1", "timeout1", "missing1", "raise1"]),
)

_MOMENTS = st.one_of(
    st.tuples(st.just("turns"), st.integers(0, 60)),
    st.tuples(st.just("records"), st.integers(1, 300)),
    st.tuples(st.just("settled"), st.integers(1, 300)),
)


@dataclass(frozen=True)
class Emit:
    """Events to one topic, each a line of items."""

    topic: str
    lines: tuple[str, ...]
    at_once: bool


Moment = tuple[str, int]
Step = tuple[Moment, str | Emit]

_EMITS = st.builds(
    Emit,
    st.sampled_from(["work", "work", "other", "both"]),
    st.lists(st.lists(_ITEMS, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=3).map(tuple),
    st.booleans(),
)


@dataclass(frozen=True)
class Plan:
    """A whole run."""

    workers: tuple[int, int]
    loop: str
    queue_limit: int
    event_limit: int
    drain_seconds: float
    first: Emit
    steps: tuple[Step, ...]
    last: Moment
    end: str


def plans(actions: list[str], ends: list[str]) -> st.SearchStrategy[Plan]:
    act: st.SearchStrategy[str | Emit] = _EMITS
    if actions:
        act = st.one_of(st.sampled_from(actions), _EMITS)
    return st.builds(
        Plan,
        workers=st.tuples(st.integers(1, 3), st.integers(1, 2)),
        loop=st.sampled_from(["asyncio", "uvloop"]),
        queue_limit=st.sampled_from([7, 500, 100_000]),
        event_limit=st.sampled_from([1, 1000]),
        drain_seconds=st.sampled_from([0.0, 30.0]),
        first=_EMITS,
        steps=st.lists(st.tuples(_MOMENTS, act), min_size=bool(actions), max_size=4).map(tuple),
        last=_MOMENTS,
        end=st.sampled_from(ends),
    )


# ---- what is run


class Watched:
    """A sink that keeps log lines, and wakes who waits for a number of records."""

    def __init__(self) -> None:
        self.count = 0
        self.logged: list[Log] = []
        self.came = asyncio.Event()

    def write(self, record: Record) -> None:
        self.count += 1
        if isinstance(record, Log):
            self.logged.append(record)
        self.came.set()

    async def flush(self) -> None:
        """Nothing to bring away."""

    async def close(self) -> None:
        self.came.set()


class Run:
    """A plan at work."""

    def __init__(self, plan: Plan, folder: Path, isolation: str) -> None:
        self.plan = plan
        self.folder = folder
        self.sink = Watched()
        self.queues: dict[TaskQueue, str] = {}
        self.emitted = 0
        self.scripts = []
        onunload = ONUNLOAD.replace("FOLDER", str(folder))
        for name, workers in zip(("work", "other"), plan.workers, strict=True):
            rest = f"request_async_workers = {workers}, {onunload}"
            source = on_event(HOOK, before=BEFORE, rest=rest, topics=f'{{ "{name}", "both" }}')
            self.scripts.append(write(folder.parent, source, f"{name}.lua"))
        config = Config(
            queue_limit=plan.queue_limit,
            event_limit=plan.event_limit,
            drain_seconds=plan.drain_seconds,
            async_isolation=isolation,  # type: ignore[arg-type]
        )
        self.engine = Engine(self.scripts, config=config, sinks=[self.sink])

    async def main(self) -> None:
        body = asyncio.ensure_future(self._body())
        if self.plan.end in ("cancel", "cancel in the end"):
            async with self._waiting_for(self.plan.last) as moment:
                await asyncio.wait([body, moment], return_when=asyncio.FIRST_COMPLETED)
            body.cancel()
        await asyncio.wait([body], timeout=DEADLINE)
        assert body.done(), "it never ends"
        with suppress(asyncio.CancelledError, OwnError):
            await body

    async def _body(self) -> None:
        async with self.engine:
            self._note_queues()
            await self._emit(self.plan.first)
            for moment, action in self.plan.steps:
                await self._reached(moment)
                await self._act(action)
            if self.plan.end == "cancel":
                await asyncio.Event().wait()
            if self.plan.end != "cancel in the end":
                await self._reached(self.plan.last)
            if self.plan.end == "raise":
                raise OwnError

    async def _act(self, action: str | Emit) -> None:
        if isinstance(action, Emit):
            await self._emit(action)
            return
        with suppress(EngineError):  # it is not loaded
            await self.engine.unload("work.lua")
        if action == "reload":
            await self.engine.load(self.scripts[0])
            self._note_queues()

    def _note_queues(self) -> None:
        for plugin in self.engine.plugins:
            assert plugin.queue is not None
            self.queues.setdefault(plugin.queue, plugin.script)

    async def _emit(self, emit: Emit) -> None:
        events = [f"{self.folder} {line}" for line in emit.lines]
        self.emitted += len(events)
        if emit.at_once:
            await self.engine.emit_batch(emit.topic, events)
            return
        for each in events:
            self.engine.emit_nowait(emit.topic, each)

    @asynccontextmanager
    async def _waiting_for(self, moment: Moment) -> AsyncIterator[asyncio.Future[None]]:
        waiting = asyncio.ensure_future(self._reached(moment))
        try:
            yield waiting
        finally:
            waiting.cancel()

    async def _reached(self, moment: Moment) -> None:
        """Wait for a moment, or until there is nothing to wait for."""
        kind, number = moment
        if kind == "turns":
            for _ in range(number):
                await asyncio.sleep(0)
            return
        while not self._idle():
            counts = self.engine.stats.tasks
            settled = counts.submitted - counts.pending
            if (self.sink.count if kind == "records" else settled) >= number:
                return
            self.sink.came.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(0.001):  # wait_for of Python 3.11 may swallow a cancellation
                    await self.sink.came.wait()

    def _idle(self) -> bool:
        stats = self.engine.stats
        return not (stats.tasks.pending or stats.events.pending)

    # ---- what must hold after it

    def check(self) -> None:
        stats = self.engine.stats
        assert_counts_close(stats)
        assert stats.events.received == self.emitted
        self._check_queues(stats.tasks)
        self._check_files()
        unmeant = [each for each in self.sink.logged if each.level == "ERROR" and not MEANT.match(each.text)]
        assert unmeant == []
        assert stats.script_errors == len(
            [each for each in self.sink.logged if "\nstack traceback" in each.text or "onexecute: timeout" in each.text]
        )

    def _check_queues(self, total: AsyncStats) -> None:
        """By what each script counted itself, which it says in onunload."""
        goodbyes = [
            (each.script, *map(int, each.text.split()[1:]))
            for each in self.sink.logged
            if each.text.startswith("goodbye")
        ]
        found = [(script, queue.stats()) for queue, script in self.queues.items()]
        assert sorted(script for script, *_ in goodbyes) == sorted(script for script, _ in found)
        names = ("submitted", "completed", "failed", "timed_out", "rejected", "abandoned", "pending")
        for name in names:
            assert getattr(total, name) == sum(getattr(counts, name) for _, counts in found), name
        for script in ("work.lua", "other.lua"):  # the queues of one script, in the order of their ends
            told = [each for name, *each in goodbyes if name == script]
            counted = [counts for name, counts in found if name == script]
            for (tasks, operations, refused, results, failures), counts in zip(told, counted, strict=True):
                assert closes(counts)
                assert counts.pending == 0
                assert counts.submitted == tasks + operations + refused
                assert counts.rejected == refused
                assert results + failures <= tasks
                assert failures <= counts.failed
                assert results <= counts.completed

    def _check_files(self) -> None:
        for path in self.folder.iterdir():
            contents = path.read_bytes()
            if path.name.startswith("copy"):
                assert contents in SOURCES
            elif path.name.startswith("cat"):
                assert is_made_of(contents)
            else:
                assert path.name.startswith("buffer"), f"{path.name} is no file of ours"
                assert re.fullmatch(rb"(<\d+>)*", contents)


def is_made_of(contents: bytes) -> bool:
    """Whether contents are whole sources, one after the other."""
    at = 0
    while at < len(contents):
        source = SOURCES[contents[at] - ord("a")]
        if not contents.startswith(source, at):
            return False
        at += len(source)
    return True


@contextmanager
def no_errors_logged() -> Iterator[None]:
    """Fail if anything but a script's log line is logged as an error: by the engine, or by asyncio."""
    found: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    handler, scripts = Handler(logging.ERROR), logging.getLogger("offpath.script")
    logging.getLogger().addHandler(handler)
    scripts.setLevel(logging.CRITICAL + 1)  # hundreds of lines that are meant
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        scripts.setLevel(logging.NOTSET)
    assert found == []


_runs = count()


def go(root: Path, plan: Plan, isolation: str = "thread") -> Run:
    """Run a plan in a folder of its own, and check what is left of it."""
    folder = root / f"run{next(_runs)}" / "out"
    folder.mkdir(parents=True)
    for number, source in enumerate(SOURCES):
        original = root / f"source{number}"
        if not original.exists():
            original.write_bytes(source)
        (folder.parent / original.name).symlink_to(original)
    runs: list[Run] = []

    async def main() -> None:
        runs.append(Run(plan, folder, isolation))
        await runs[0].main()

    with no_errors_logged():
        run_alone(uvloop.new_event_loop if plan.loop == "uvloop" else asyncio.new_event_loop, main())
    runs[0].check()
    shutil.rmtree(folder.parent)
    return runs[0]


ends = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # threads decide, too: what fails need not fail again
)


@ends
@given(plan=plans(["unload", "reload", "reload"], ["leave", "cancel"]))
def test_unloaded_and_reloaded_at_any_moment(tmp_path: Path, plan: Plan) -> None:
    go(tmp_path, plan)


@ends
@given(plan=plans([], ["leave", "raise", "cancel", "cancel in the end"]))
def test_left_by_an_exception_or_cancelled_at_any_moment(tmp_path: Path, plan: Plan) -> None:
    go(tmp_path, plan)


@settings(ends, max_examples=15)
@given(plan=plans(["unload", "reload"], ["leave", "raise", "cancel", "cancel in the end"]))
def test_processes_end_with_their_plugins(tmp_path: Path, plan: Plan) -> None:
    with nothing_left():
        go(tmp_path, plan, "process")
