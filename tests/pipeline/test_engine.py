"""The life of an engine, on asyncio's loop and on uvloop's: what it starts ends with its block."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvloop

from engine import Capture, Config, Engine, EngineError
from engine.capture.synth import synthesize
from engine.offload import Gate
from engine.values.errors import EngineClosedError
from tests.scripts import (
    ALERTS,
    Collector,
    assert_counts_close,
    files_below,
    on_event,
    on_file,
    plugin,
    run_alone,
    write,
)
from tests.support import eventually

Run = Callable[[Coroutine[Any, Any, None]], None]

WORK = (
    "T.async:schedule{ data = tostring(event), onexecute = function(d) return d:upper() end, "
    "onresult = function(engine, d, r) T.loginfo(r) end }"
)
LONG = 'T.async:schedule{ onexecute = function() os.execute("sleep 0.3") return "late" end, onresult = function() end }'


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine to its end on a loop of its own, which may leave no thread and break no callback."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    return partial(run_alone, factory)


def test_events_messages_tasks_and_captures_work(run: Run, tmp_path: Path) -> None:
    script = write(tmp_path, on_event(WORK, rest="onmessage = function(id, m) T.loginfo(m) end"))
    files = write(tmp_path, on_file("T.async:schedule{ data = path, onexecute = function() end }"), "files.lua")
    capture = synthesize(tmp_path / "c.pcap", files=6, seed=5)
    collector = Collector()
    ramfs = tmp_path / "ram"

    async def main() -> None:
        async with Engine([script, files], config=Config(ramfs=ramfs), sinks=[collector]) as engine:
            await engine.emit("t", "a")
            engine.emit_nowait("t", "b")
            thread = threading.Thread(target=engine.emit_threadsafe, args=("t", "c"))
            thread.start()
            await eventually(lambda: sorted(collector.logged()) == ["A", "B", "C"])
            thread.join()
            await engine.run(Capture(capture.path))
        assert engine.stats.tasks.completed >= 3 + len(capture.downloads)
        assert_counts_close(engine.stats)

    run(main())
    assert collector.closed
    assert collector.records[-1].kind == "summary"
    assert files_below(ramfs) == []


def test_leaving_waits_for_queued_work(run: Run, tmp_path: Path) -> None:
    collector = Collector()

    async def main() -> None:
        async with Engine([write(tmp_path, on_event(WORK))], sinks=[collector]) as engine:
            await engine.emit_batch("t", [str(number) for number in range(500)])
        assert engine.stats.tasks.completed == 500

    run(main())
    assert collector.logged() == [str(number) for number in range(500)]


def test_the_wait_at_the_end_has_a_limit(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with Engine([write(tmp_path, on_event(LONG))], config=Config(drain_seconds=0.05)) as engine:
            await engine.emit_batch("t", ["x"] * 3)
        assert (engine.stats.tasks.abandoned, engine.stats.tasks.pending) == (3, 0)
        assert_counts_close(engine.stats)

    run(main())


def test_no_callback_runs_after_onunload_however_quick_a_worker_is(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = Gate.close

    async def close_later(gate: Gate) -> None:
        await eventually(lambda: not gate.pending)
        await close(gate)

    monkeypatch.setattr(Gate, "close", close_later)
    collector = Collector()
    last_words = WORK.replace("tostring(event)", "'last words'")
    script = write(tmp_path, on_event(WORK, rest=f"onunload = function() {last_words} T.loginfo('bye') end"))

    async def main() -> None:
        async with Engine([script], sinks=[collector]) as engine:
            await engine.emit("t", "x")
        assert (engine.stats.tasks.completed, engine.stats.tasks.late_results) == (2, 1)

    run(main())
    assert collector.logged() == ["X", "bye"]


def test_an_exception_of_the_block_comes_out_as_it_is_and_queued_work_is_abandoned(run: Run, tmp_path: Path) -> None:
    class OwnError(Exception):
        pass

    own = OwnError("mine")
    engine = Engine([write(tmp_path, on_event(LONG))])

    async def main() -> None:
        with pytest.raises(OwnError) as raised:
            async with engine:
                await engine.emit_batch("t", ["x"] * 3)
                raise own
        assert raised.value is own
        assert engine.stats.tasks.abandoned == 3
        assert_counts_close(engine.stats)

    run(main())


def cancelled_by_asyncio(main: Coroutine[Any, Any, None], ready: asyncio.Event) -> Coroutine[Any, Any, None]:
    async def cancel() -> None:
        task = asyncio.create_task(main)
        await ready.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    return cancel()


def cancelled_by_anyio(main: Coroutine[Any, Any, None], ready: asyncio.Event) -> Coroutine[Any, Any, None]:
    async def cancel() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: main)
            await ready.wait()
            group.cancel_scope.cancel()

    return cancel()


@pytest.mark.parametrize("cancel", [cancelled_by_asyncio, cancelled_by_anyio])
@pytest.mark.parametrize("busy", ["events", "capture", "asleep"])
def test_a_cancellation_cleans_up(run: Run, tmp_path: Path, cancel: Any, busy: str) -> None:
    ramfs = tmp_path / "ram"
    hold = 'T.async:schedule{ data = path, onexecute = function() os.execute("sleep 0.1") end }'
    scripts = [write(tmp_path, on_event(WORK), "events.lua"), write(tmp_path, on_file(hold), "files.lua")]
    capture = synthesize(tmp_path / "c.pcap", files=40, seed=2)

    async def main() -> None:
        engine = Engine(scripts, config=Config(ramfs=ramfs))
        ready = asyncio.Event()

        async def body() -> None:
            async with engine:
                if busy == "capture":
                    asyncio.get_running_loop().call_later(0.05, ready.set)
                    await engine.run(Capture(capture.path))
                while busy == "events":
                    await engine.emit_batch("t", ["x"] * 500)
                    ready.set()
                ready.set()
                await asyncio.sleep(60)

        await cancel(body(), ready)
        assert_counts_close(engine.stats)
        with pytest.raises(EngineClosedError):
            engine.emit_nowait("t", "x")

    run(main())
    assert files_below(ramfs) == []


def test_a_cancellation_while_the_end_waits_for_work_cleans_up_too(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        engine = Engine([write(tmp_path, on_event(LONG))])
        left = asyncio.Event()

        async def body() -> None:
            async with engine:
                await engine.emit("t", "x")
                left.set()

        task = asyncio.create_task(body())
        await left.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert_counts_close(engine.stats)
        with pytest.raises(EngineClosedError):
            engine.emit_nowait("t", "x")

    run(main())


def test_leaving_while_a_capture_is_read_ends_the_reading(run: Run, tmp_path: Path) -> None:
    ramfs = tmp_path / "ram"
    capture = synthesize(tmp_path / "c.pcap", files=60, seed=1)

    async def main() -> None:
        engine = Engine([write(tmp_path, on_file(""))], config=Config(ramfs=ramfs, slice_seconds=0.0001))
        async with engine:
            reading = asyncio.create_task(engine.run(Capture(capture.path)))
            await eventually(lambda: engine.stats.http.files >= 3 or reading.done())
            assert not reading.done()
        with pytest.raises((EngineError, asyncio.CancelledError)):
            await asyncio.wait_for(reading, 10)
        assert_counts_close(engine.stats)

    run(main())
    assert files_below(ramfs) == []


def test_nothing_is_handled_after_onunload(run: Run, tmp_path: Path) -> None:
    """Someone goes on emitting while the block is left."""
    script = on_event(
        "if over then T.logerror('after onunload') end",
        rest="onunload = function() over = true; T.async:schedule{ onexecute = function() end } end",
    )
    collector = Collector()

    async def main() -> None:
        async def go_on() -> None:
            while True:
                engine.emit_nowait("t", "x")
                await engine.emit("t", "y")
                await asyncio.sleep(0)

        async with Engine([write(tmp_path, script)], sinks=[collector]) as engine:
            emitting = asyncio.create_task(go_on())
            await eventually(lambda: engine.stats.events.handled > 5)
        with pytest.raises(EngineClosedError):
            await asyncio.wait_for(emitting, 10)
        assert collector.logged("ERROR") == []
        assert_counts_close(engine.stats)

    run(main())


def test_late_results_of_an_unloaded_script_are_dropped_and_counted(run: Run, tmp_path: Path) -> None:
    text = on_event(
        'T.async:schedule{ onexecute = function() os.execute("sleep 0.05") return "r" end, '
        "onresult = function() T.loginfo('result') end }",
        rest="onunload = function() T.loginfo('unloaded') end",
    )
    collector = Collector()

    async def main() -> None:
        async with Engine([write(tmp_path, text, "gone.lua")], sinks=[collector]) as engine:
            await engine.emit_batch("t", ["x"] * 3)
            await engine.unload("gone.lua")
            assert engine.stats.plugins == ()
            await engine.emit("t", "nobody hears")
            await eventually(lambda: engine.stats.tasks.late_results == 3)
        assert engine.stats.tasks.completed == 3
        assert_counts_close(engine.stats)

    run(main())
    assert collector.logged() == ["unloaded"]


def test_scripts_come_and_go_at_run_time(run: Run, tmp_path: Path) -> None:
    script = write(tmp_path, on_event("T.loginfo('old ' .. event)"))
    collector = Collector()

    async def main() -> None:
        async with Engine(sinks=[collector]) as engine:
            await engine.emit("t", "0")
            assert await engine.load(script) == ("event_monitor",)
            await engine.emit("t", "1")
            await engine.unload(script)
            await engine.emit("t", "2")
            write(tmp_path, on_event("T.loginfo('new ' .. event)"))
            await engine.load(str(script))
            await engine.emit("t", "3")

    run(main())
    assert collector.logged() == ["old 1", "new 3"]


def test_two_engines_in_one_loop_share_nothing(run: Run, tmp_path: Path) -> None:
    text = on_event(WORK, rest=f"alert_monitor = {{ alert_guid = '{ALERTS}', onnewalert = function() end }}")
    first, second = Collector(), Collector()

    async def main() -> None:
        script = write(tmp_path, text)
        async with Engine([script], sinks=[first]) as one:
            async with Engine([script], sinks=[second]) as two:
                await asyncio.gather(one.emit("t", "one"), two.emit_batch("t", ["two", "three"]))
            assert two.stats.events.received == 2
            await one.emit("t", "still")
        assert one.stats.events.received == 2

    run(main())
    assert first.logged() == ["ONE", "STILL"]
    assert second.logged() == ["TWO", "THREE"]


def test_it_installs_no_signal_handlers(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        before = {each: signal.getsignal(each) for each in signal.valid_signals()}
        wakeup = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wakeup)
        async with Engine([write(tmp_path, on_event(WORK))]) as engine:
            await engine.emit("t", "x")
            assert {each: signal.getsignal(each) for each in signal.valid_signals()} == before
        assert {each: signal.getsignal(each) for each in signal.valid_signals()} == before
        assert signal.set_wakeup_fd(wakeup) == wakeup

    run(main())


async def test_outside_the_block_every_use_is_refused(tmp_path: Path) -> None:
    engine = Engine()

    async def refused() -> None:
        for attempt in (
            engine.emit("t", "x"),
            engine.emit_batch("t", ["x"]),
            engine.load(tmp_path / "x.lua"),
            engine.unload("x.lua"),
            engine.run(Capture(tmp_path / "x.pcap")),
        ):
            with pytest.raises(EngineClosedError, match="use it inside 'async with Engine"):
                await attempt
        for emit in (engine.emit_nowait, engine.emit_threadsafe):
            with pytest.raises(EngineClosedError, match="cannot emit an event"):
                emit("t", "x")

    await refused()
    async with engine:
        pass
    await refused()
    assert engine.stats.events.received == 0
    with pytest.raises(EngineError, match="entered once"):
        await engine.__aenter__()


async def test_onunload_runs_once_and_may_record(tmp_path: Path) -> None:
    text = plugin("onload = function() T.loginfo('in') end, onunload = function() T.loginfo('out') end")
    collector = Collector()
    async with Engine([write(tmp_path, text)], sinks=[collector]):
        assert collector.logged() == ["in"]
    assert collector.logged() == ["in", "out"]
