"""An engine on a thread of its own: events in, records and answers out, and nothing left behind."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from engine import Config, Engine, EngineError
from engine.values.records import Alert
from tests.scripts import on_event, write
from tests.support import no_threads_left

ALERTS = "{B5F1DECB-51D5-4395-B71B-6FA730B772D9}"
HOOK = f"""
if event == "fail" then error("no") end
engine:add_alert("{ALERTS}", nil, "s", 1, event)
return "had " .. event
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return write(tmp_path, on_event(HOOK))


@pytest.mark.parametrize("use_uvloop", [False, True])
def test_events_go_in_and_records_come_out(script: Path, use_uvloop: bool) -> None:
    with no_threads_left(), Engine.in_thread([script], use_uvloop=use_uvloop) as engine:
        alerts = engine.subscribe("alert")
        engine.emit("t", "one")
        engine.emit_batch("t", ["two", "three"])
        assert engine.emit_nowait("t", "four")
        found = [next(alerts) for _ in range(4)]
        assert [each.message for each in found if isinstance(each, Alert)] == ["one", "two", "three", "four"]
        assert engine.request("t", "five") == "had five"
        assert engine.stats.events.handled == 5
    assert engine.stats.events.handled == 5


def test_events_of_many_threads_are_all_handled(script: Path) -> None:
    start = threading.Barrier(4)

    def send() -> None:
        start.wait()
        for at in range(200):
            assert engine.emit_nowait("t", str(at))

    with no_threads_left(), Engine.in_thread([script]) as engine:
        threads = [threading.Thread(target=send) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert engine.stats.events.handled == 800


def test_an_iterator_of_another_thread_ends_with_the_engine(script: Path) -> None:
    found: list[object] = []
    with no_threads_left():
        with Engine.in_thread([script]) as engine:
            records = engine.subscribe("alert")
            reader = threading.Thread(target=lambda: found.extend(records))
            reader.start()
            for at in range(1_000):
                engine.emit_nowait("t", str(at))
        reader.join(10)
        assert not reader.is_alive()
    assert len(found) == 1_000


def test_what_goes_wrong_is_raised_where_it_was_asked_for(script: Path, tmp_path: Path) -> None:
    with no_threads_left(), Engine.in_thread([script, tmp_path / "none.lua"]) as engine:
        assert "none.lua" in str(engine.load_errors[0])
        with pytest.raises(EngineError, match=r"script\.lua"):
            engine.request("t", "fail")
        with pytest.raises(TypeError):
            engine.emit("t", object())  # type: ignore[arg-type]
    with pytest.raises(EngineError):
        engine.emit("t", "late")
    with pytest.raises(EngineError):
        engine.emit_nowait("t", "late")


def test_an_error_in_the_block_ends_the_engine(script: Path) -> None:
    with no_threads_left(), pytest.raises(ZeroDivisionError), Engine.in_thread([script], config=Config()) as engine:
        engine.emit("t", "x")
        raise ZeroDivisionError


def test_one_that_was_not_entered_says_so(script: Path) -> None:
    with pytest.raises(EngineError):
        Engine.in_thread([script]).emit("t", "x")


def test_functions_of_the_program_run_on_the_thread_of_the_engine(tmp_path: Path) -> None:
    path = write(tmp_path, on_event("return T.host.call.where()"))
    with no_threads_left(), Engine.in_thread([path]) as engine:
        engine.expose("where", lambda: threading.get_ident())
        assert engine.request("t", "") != threading.get_ident()


def test_two_engines_have_nothing_of_each_other(script: Path) -> None:
    with no_threads_left(), Engine.in_thread([script]) as one, Engine.in_thread([script]) as other:
        one.emit("t", "x")
        assert (one.stats.events.handled, other.stats.events.handled) == (1, 0)
