"""Requests: what handlers answer, at once or later, and what becomes of those that never do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, RequestError
from engine.pytest_plugin import MakeEngine
from engine.values.errors import EngineClosedError
from tests.scripts import assert_counts_close, on_event, write
from tests.support import eventually

LATER = """
local p = T.promise()
T.async:schedule{ data = event, onexecute = function(d) return d:upper() end,
  onresult = function(_, _, answer) p:resolve({ answer = answer }) end }
return p
"""


@pytest.mark.parametrize(
    ("lua", "expected"),
    [
        ("42", 42),
        ("1.5", 1.5),
        ("'caf\u00e9'", "caf\u00e9"),
        ("'\\255'", b"\xff"),
        ("true", True),
        ("false", False),
        ("{ 1, { a = 'x' } }", [1, {"a": "x"}]),
        ("nil", None),
        ("event", "e"),
    ],
)
async def test_a_request_gives_what_the_handler_returns(offpath_engine: MakeEngine, lua: str, expected: Any) -> None:
    engine = await offpath_engine(on_event(f"return {lua}"))
    assert await engine.request("t", "e") == expected
    assert engine.stats.events.handled == 1
    assert_counts_close(engine.stats)


async def test_the_event_of_a_request_may_be_a_mapping(tmp_path: Path) -> None:
    async with Engine([write(tmp_path, on_event("return event.n * #event.b"))]) as engine:
        assert await engine.request("t", {"n": 2, "b": b"\xff\xff"}) == 4
        with pytest.raises(TypeError, match=r"event\.n is a object"):
            await engine.request("t", {"n": object()})
        assert engine.stats.events.failed == 1
    assert_counts_close(engine.stats)


async def answer_of(tmp_path: Path, collect: Any, *bodies: str) -> Any:
    scripts = [write(tmp_path, on_event(body), f"{place}.lua") for place, body in enumerate(bodies)]
    async with Engine(scripts) as engine:
        return await engine.request("t", "e", collect=collect, timeout=20)


async def test_first_all_and_reduced(tmp_path: Path) -> None:
    bodies = ("return nil", "return 2", LATER.replace("{ answer = answer }", "#answer + 2"), "return 4")
    assert await answer_of(tmp_path, "first", *bodies) == 2
    assert await answer_of(tmp_path, "all", *bodies) == [2, 3, 4]
    assert await answer_of(tmp_path, lambda a, b: a * b, *bodies) == 24
    assert await answer_of(tmp_path, max, "return nil") is None
    assert await answer_of(tmp_path, "all") == []
    assert await answer_of(tmp_path, "first") is None
    with pytest.raises(TypeError, match="collect is 'last'"):
        await answer_of(tmp_path, "last", *bodies)


async def test_a_promise_is_answered_from_onresult(tmp_path: Path) -> None:
    async with Engine([write(tmp_path, on_event(LATER))]) as engine:
        answers = await asyncio.gather(*(engine.request("t", f"e{n}", timeout=20) for n in range(50)))
    assert answers == [{"answer": f"E{n}"} for n in range(50)]


async def test_a_promise_that_was_settled_before_is_an_answer(tmp_path: Path) -> None:
    assert await answer_of(tmp_path, "first", "local p = T.promise() p:resolve(7) p:resolve(8) return p") == 7
    with pytest.raises(RequestError, match=r"^0\.lua: event_monitor\.onevent: not now$"):
        await answer_of(tmp_path, "first", "local p = T.promise() p:reject('not now') return p")


async def test_a_handler_that_raises_does_not_hide_the_answer_of_another(tmp_path: Path) -> None:
    assert await answer_of(tmp_path, "first", "error('no')", "return 1") == 1
    for collect in ("first", "all"):
        with pytest.raises(RequestError, match=r"0\.lua: event_monitor\.onevent: 0\.lua:4: no$"):
            await answer_of(tmp_path, collect, "error('no')", "return nil")


async def test_an_answer_that_is_no_plain_value_names_hook_and_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"0\.lua:3: the answer\.a is a function, which is no plain value"):
        await answer_of(tmp_path, "first", "return { a = print }")


async def test_a_wrong_resolve_raises_at_its_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"0\.lua:5: promise:resolve: the answer is a function"):
        await answer_of(tmp_path, "first", "local p = T.promise()\np:resolve(print)")


async def test_a_timeout_ends_the_wait_and_leaves_nothing(tmp_path: Path) -> None:
    script = on_event("if event == 'go' then kept:resolve(1) else kept = T.promise() return kept end")
    async with Engine([write(tmp_path, script)]) as engine:
        with pytest.raises(TimeoutError):
            await engine.request("t", "e", timeout=0.01)
        assert engine._pipeline.requests.pending == 0
        await engine.emit("t", "go")  # nobody waits any more
        waiting = asyncio.create_task(engine.request("t", "e"))
        await eventually(lambda: engine._pipeline.requests.pending == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert engine._pipeline.requests.pending == 0
    assert_counts_close(engine.stats)


async def test_who_unloads_or_stops_does_not_leave_requests_waiting(tmp_path: Path) -> None:
    script = write(tmp_path, on_event("return T.promise()"))
    async with Engine([script]) as engine:
        waiting = asyncio.create_task(engine.request("t", "e"))
        await eventually(lambda: engine._pipeline.requests.pending == 1)
        await engine.unload(script)
        with pytest.raises(RequestError, match="unloaded"):
            await waiting
        await engine.load(script)
        waiting = asyncio.create_task(engine.request("t", "e"))
        await eventually(lambda: engine._pipeline.requests.pending == 1)
    with pytest.raises(EngineClosedError):
        await waiting
    with pytest.raises(EngineClosedError):
        await engine.request("t", "e")
