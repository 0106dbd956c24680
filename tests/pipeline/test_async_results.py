"""`T.async:schedule` from the hook to its callbacks: what comes back, when, and what does not."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from engine import Engine
from engine.capture.synth import synthesize
from tests.pipeline.async_rig import Logged, MakeConfig, task
from tests.processes import nothing_left
from tests.scripts import (
    ALERTS,
    HASHES,
    Collector,
    assert_counts_close,
    on_alert,
    on_event,
    on_file,
    on_message,
    plugin,
    run_capture,
    write,
)
from tests.support import WorkerKind, eventually

SHA1 = (
    "T.async:schedule({"
    "  onexecute = function()"
    '    local handle = io.popen("sha1sum " .. path)'
    '    local answer = handle:read("*a") handle:close() return answer:match("%x+")'
    "  end,"
    "  onresult = function(engine, indata, outdata)"
    f'    engine:add_resource("{HASHES}", flowkey:id(), "SHA1:" .. outdata, path)'
    "  end"
    "})"
)


@pytest.mark.parametrize(
    ("returned", "lines"),
    [
        ('return d .. "!"', ["in>in!"]),
        ('return ""', ["in>"]),
        ("return 42", ["in>42"]),
        ("return 1.5", ["in>1.5"]),
        ("return nil", []),
        ("", []),
        ("return 'a', 'b'", ["in>a"]),
    ],
)
async def test_what_onexecute_returns_is_delivered_as_a_string(logged: Logged, returned: str, lines: list[str]) -> None:
    collector, stats = await logged(task(returned, "T.loginfo(d .. '>' .. r) assert(type(r) == 'string')"))
    assert collector.logged() == lines
    assert collector.logged("ERROR") == []
    assert (stats.tasks.submitted, stats.tasks.completed) == (1, 1)


@pytest.mark.parametrize(("returned", "kind"), [("{}", "table"), ("true", "boolean"), ("print", "function")])
async def test_a_result_of_another_type_is_logged_and_ignored(logged: Logged, returned: str, kind: str) -> None:
    collector, stats = await logged(task(f"return {returned}"))
    assert collector.logged() == []
    assert collector.logged("WARN") == [f"onexecute returned a {kind}, which is ignored: return a string"]
    assert (stats.tasks.completed, stats.tasks.failed) == (1, 0)


async def test_all_bytes_survive_both_ways(logged: Logged) -> None:
    body = (
        "local all = {} for i = 0, 255 do all[#all + 1] = string.char(i) end local data = table.concat(all) "
        "T.async:schedule{ data = data, onexecute = function(d) return d:reverse() end, "
        "onresult = function(engine, d, r) T.loginfo(tostring(d == data and r == data:reverse())) end }"
    )
    assert (await logged(body))[0].logged() == ["true"]


async def test_an_error_reaches_onerror_with_script_and_line_and_counts_as_failed(logged: Logged) -> None:
    body = task("\n\nerror('no luck')", more="onerror = function(engine, d, e) T.loginfo(d .. '!' .. e) end")
    collector, stats = await logged(body)
    (told,) = collector.logged()
    assert told.startswith("in!work.lua:6: no luck")
    assert (stats.tasks.failed, stats.tasks.completed, stats.script_errors) == (1, 0, 1)
    (line,) = collector.logged("ERROR")
    assert line.startswith("event_monitor.onexecute: work.lua:6: no luck")


@pytest.mark.parametrize("callback", ["onresult", "onerror"])
async def test_an_error_in_a_callback_is_logged_and_the_task_is_done(logged: Logged, callback: str) -> None:
    wrong = "error('in callback')"
    if callback == "onresult":
        body = task("return 'x'", wrong)
    else:
        body = task("error('first')", more=f"onerror = function() {wrong} end")
    collector, stats = await logged(body + " T.loginfo(T.async:pending_items())")
    assert stats.tasks.pending == 0
    assert collector.logged() == ["1"]
    assert collector.logged("ERROR")[-1].startswith(f"event_monitor.{callback}: work.lua:")
    assert "in callback" in collector.logged("ERROR")[-1]


async def test_a_timeout_reaches_onerror_and_the_next_task_is_run(
    config: MakeConfig, worker_kind: WorkerKind, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    more = "timeout = 0.05, onerror = function(engine, d, e) T.loginfo('error ' .. e) end"
    body = task(f"return io.open('{gate}'):read('*a')", more=more) + task("return 'next'")
    with nothing_left():
        collector = Collector()
        async with Engine([write(tmp_path, on_event(body))], config=config(), sinks=[collector]) as engine:
            await engine.emit("t", "go")
            await eventually(lambda: len(collector.logged()) == 2)
            assert collector.logged() == ["error timeout", "in>next"]
            if worker_kind == "thread":
                gate.write_bytes(b"late")
            await eventually(lambda: engine.stats.tasks.stuck_threads == 0)
    tasks = engine.stats.tasks
    assert (tasks.timed_out, tasks.failed, tasks.completed, tasks.pending) == (1, 1, 1, 0)
    assert len(collector.logged()) == 2
    assert_counts_close(engine.stats)


async def test_the_published_sha1_example_runs_as_it_is(config: MakeConfig, tmp_path: Path) -> None:
    """Both functions use the hook's own variables instead of `in_data`."""
    made = synthesize(tmp_path / "c.pcap", files=8, seed=3)
    script = write(tmp_path, on_file(SHA1))
    collector, stats = await run_capture(made.path, [script], config(chunk_bytes=64 << 20))
    found = {each.uri.removeprefix("SHA1:") for each in collector.of("resource")}
    assert {each.sha1 for each in made.files} <= found
    assert collector.logged("ERROR") == []
    assert {each.flow for each in collector.of("resource")} <= {each.id for each in collector.of("flow")}
    assert_counts_close(stats)


async def test_data_and_functions_are_captured_at_the_call(logged: Logged) -> None:
    before = (
        "local job = { onexecute = function(d) return d:upper() end,"
        " onresult = function(engine, d, r) T.loginfo(d .. '=>' .. r) end }"
    )
    body = (
        'for _, s in ipairs{ "a", "b", "c" } do job.data = s; T.async:schedule(job) end '
        "assert(job.data == 'c' and job.onexecute) job.data = nil job.onexecute = nil"
    )
    assert (await logged(body, before=before))[0].logged() == ["a=>A", "b=>B", "c=>C"]


async def test_with_one_worker_results_come_in_the_order_of_the_calls(logged: Logged) -> None:
    body = "for i = 1, 500 do " + task("return 'r'", "T.loginfo(d)", data='" .. i .. "') + " end"
    assert (await logged(body))[0].logged() == [str(number) for number in range(1, 501)]


@pytest.mark.parametrize("limit", [1, 3])
async def test_past_the_limit_schedule_says_so_and_the_rejected_are_counted(logged: Logged, limit: int) -> None:
    body = f"for i = 1, 5 do local ok, why = {task('return d', data='x')} T.loginfo(tostring(why)) end"
    collector, stats = await logged(body, queue_limit=limit)
    lines = collector.logged()
    assert lines[:5] == ["nil"] * limit + ["queue full"] * (5 - limit)
    assert lines[5:] == ["x>x"] * limit
    assert (stats.tasks.submitted, stats.tasks.completed, stats.tasks.rejected) == (5, limit, 5 - limit)


@pytest.mark.parametrize(("own", "engines", "room"), [(2, 4, 2), (4, 2, 2), (1, 100_000, 1)])
async def test_the_lower_limit_holds_of_a_script_s_own_and_the_engine_s(
    logged: Logged, own: int, engines: int, room: int
) -> None:
    body = f"for i = 1, 5 do local ok, why = {task('return d', data='x')} T.loginfo(tostring(why)) end"
    rest = f"async_queue_limit = {own}"
    collector, stats = await logged(body, rest=rest, queue_limit=engines)
    assert collector.logged() == ["nil"] * room + ["queue full"] * (5 - room) + ["x>x"] * room
    assert (stats.tasks.submitted, stats.tasks.completed, stats.tasks.rejected) == (5, room, 5 - room)


async def test_a_limit_of_one_script_is_not_another_s(tmp_path: Path) -> None:
    body = f"for i = 1, 5 do local ok, why = {task('return d', data='x')} end"
    small = write(tmp_path, on_event(body, rest="async_queue_limit = 1"), "small.lua")
    other = write(tmp_path, on_event(body), "other.lua")
    async with Engine([small, other]) as engine:
        await engine.emit("t", "go")
    assert {each.script: each.tasks.rejected for each in engine.stats.plugins} == {"small.lua": 4, "other.lua": 0}


async def test_a_limit_that_is_no_number_is_refused_when_the_script_is_loaded(tmp_path: Path) -> None:
    async with Engine([write(tmp_path, on_event("", rest="async_queue_limit = 0"))]) as engine:
        [error] = engine.load_errors
    assert error.message == "async_queue_limit must be a whole number from 1, not 0"


async def test_a_full_queue_takes_work_again_when_some_is_done(config: MakeConfig, tmp_path: Path) -> None:
    collector = Collector()
    script = write(tmp_path, on_event(task("return d", data='" .. event .. "')))
    async with Engine([script], config=config(queue_limit=1), sinks=[collector]) as engine:
        for number in range(3):
            await engine.emit("t", str(number))
            await eventually(lambda: not engine.stats.tasks.pending)
    assert collector.logged() == ["0>0", "1>1", "2>2"]
    assert engine.stats.tasks.rejected == 0


async def test_a_file_operation_past_the_limit_is_rejected_too(logged: Logged, tmp_path: Path) -> None:
    body = f'for i = 1, 3 do local ok, why = T.async:copybuffer("x", "{tmp_path}/out") T.loginfo(tostring(why)) end'
    collector, stats = await logged(body, queue_limit=2)
    assert collector.logged() == ["nil", "nil", "queue full"]
    assert (stats.tasks.completed, stats.tasks.rejected) == (2, 1)
    assert (tmp_path / "out").read_bytes() == b"xx"


SCHEDULE = task("return d:upper()", data="work")

INSIDE = {
    "onload": plugin(f"onload = function() {SCHEDULE} end"),
    "onmessage": on_message(SCHEDULE),
    "onresult": on_event(task("return 'r'", SCHEDULE), topics='"t"'),
    "onerror": on_event(task("error('x')", more=f"onerror = function() {SCHEDULE} end"), topics='"t"'),
    "onnewalert": on_alert(SCHEDULE),
}


@pytest.mark.parametrize("hook", INSIDE)
async def test_work_may_be_scheduled_anywhere(config: MakeConfig, tmp_path: Path, hook: str) -> None:
    scripts = [write(tmp_path, INSIDE[hook])]
    cause = f'engine:post_message_frontend("m") engine:add_alert("{ALERTS}", nil, "s", 1, "m")'
    scripts.append(write(tmp_path, on_event(cause), "cause.lua"))
    collector = Collector()
    async with Engine(scripts, config=config(), sinks=[collector]) as engine:
        await engine.emit("t", "go")
    assert collector.logged() == ["work>WORK"]
    assert_counts_close(engine.stats)


async def test_work_scheduled_in_onunload_comes_too_late_but_is_counted(config: MakeConfig, tmp_path: Path) -> None:
    collector = Collector()
    text = plugin(f"onunload = function() {SCHEDULE} end")
    async with Engine([write(tmp_path, text)], config=config(), sinks=[collector]) as engine:
        pass
    assert collector.logged() == []
    assert (engine.stats.tasks.submitted, engine.stats.tasks.abandoned) == (1, 1)
    assert_counts_close(engine.stats)


async def test_callbacks_run_on_the_loop_while_workers_are_busy(config: MakeConfig, tmp_path: Path) -> None:
    """A worker that blocks holds up neither the loop nor the results of the other workers."""
    gate = tmp_path / "gate"
    wait = (
        f'for _ = 1, 1000 do local f = io.open("{gate}") if f then f:close() return "slow" end '
        'os.execute("sleep 0.01") end'
    )
    body = task(wait) + "for i = 1, 20 do " + task("return 'quick'", "T.loginfo(r)") + " end"
    collector = Collector()
    script = write(tmp_path, on_event(body, rest="request_async_workers = 2"))
    async with Engine([script], config=config(), sinks=[collector]) as engine:
        await engine.emit("t", "go")
        async with asyncio.timeout(10):
            await eventually(lambda: len(collector.logged()) == 20)
        assert set(collector.logged()) == {"quick"}
        assert engine.stats.tasks.pending == 1
        gate.touch()
    assert collector.logged()[-1] == "in>slow"


async def test_workers_see_require_and_t_but_no_async(logged: Logged, tmp_path: Path) -> None:
    write(tmp_path, "return { twice = function(s) return s .. s end }", "sibling.lua")
    wrong = "local ok, why = pcall(function() T.async:schedule{} end) "
    body = task(wrong + "return require('sibling').twice(T.util.bin2hex(d)) .. tostring(why):match('not available')")
    collector, _ = await logged(body)
    assert collector.logged() == ["in>" + b"in".hex() * 2 + "not available"]


async def test_worker_logs_come_out_with_the_script(logged: Logged) -> None:
    collector, _ = await logged(task("T.logerror('from a worker') return nil"))
    assert [(each.script, each.text) for each in collector.of("log") if each.level == "ERROR"] == [
        ("work.lua", "from a worker")
    ]
