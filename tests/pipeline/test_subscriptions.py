"""Subscriptions: bounded, by kind, over with the engine."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path

import pytest

from engine import ConfigError, Engine
from engine.pipeline.records import RecordBus
from engine.values.records import RECORD_TYPES, Http, Record
from tests.scripts import ALERTS, on_event, write


async def test_a_subscription_ends_with_the_engine_and_knows_its_kinds(tmp_path: Path) -> None:
    script = write(tmp_path, on_event(f'engine:add_alert("{ALERTS}", nil, event, 1, "m") T.loginfo(event)'))
    async with Engine([script]) as engine:
        alerts, few = engine.subscribe("alert"), engine.subscribe("log", limit=2)
        with pytest.raises(ConfigError, match=r"no records of kind 'alerts', there are alert, "):
            engine.subscribe("alerts")
        await engine.emit_batch("t", ["1", "2", "3"])
    async with alerts, few:
        assert [record.sigid async for record in alerts] == ["1", "2", "3"]
        assert [record.text async for record in few] == ["1", "2"]
    assert (few.dropped, engine.stats.records.dropped) == (1, 1)


async def test_a_subscription_read_to_its_end_needs_no_closing() -> None:
    async with Engine() as engine:
        subscription = engine.subscribe("summary")
    assert [record.kind async for record in subscription] == ["summary"]
    del subscription, engine
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gc.collect()
    assert [str(each.message) for each in caught] == []


async def test_a_closed_subscription_costs_nothing_and_counts_nothing(tmp_path: Path) -> None:
    async with Engine([write(tmp_path, on_event("T.loginfo(event)"))]) as engine:
        closed, other = engine.subscribe("log", limit=1), engine.subscribe("log")
        closed.close()
        await engine.emit_batch("t", ["1", "2", "3"])
        assert closed.receive_nowait() is None
        assert engine.stats.records.dropped == closed.dropped == 0
    async with other:
        assert [record.text async for record in other] == ["1", "2", "3"]


async def test_receive_nowait_takes_what_waits_in_order(tmp_path: Path) -> None:
    async with Engine([write(tmp_path, on_event("T.loginfo(event)"))]) as engine, engine.subscribe("log") as logs:
        assert logs.receive_nowait() is None
        await engine.emit_batch("t", ["1", "2"])
        taken = [logs.receive_nowait() for _ in range(3)]
    assert [getattr(record, "text", None) for record in taken] == ["1", "2", None]


async def test_who_listens_is_called_with_each_record_until_it_ends_that(tmp_path: Path) -> None:
    heard: list[Record] = []
    async with Engine([write(tmp_path, on_event("T.loginfo(event)"))]) as engine:
        end = engine.listen("log", call=heard.append)
        with pytest.raises(ConfigError, match="no records of kind 'logs'"):
            engine.listen("logs", call=heard.append)
        await engine.emit_batch("t", [str(number) for number in range(1000)])
        end()
        end()
        await engine.emit("t", "too late")
    texts = [getattr(record, "text", "") for record in heard]
    # A machine under load makes every hook a slow one, which is a line, too.
    assert [text for text in texts if text.isdigit()] == [str(number) for number in range(1000)]
    assert "too late" not in texts
    assert engine.stats.records.dropped == 0


def test_kinds_that_are_listened_to_are_made() -> None:
    bus = RecordBus(())
    end = bus.listen(["http", "document"], lambda record: None)
    assert bus.kinds == {"http", "document"}
    assert bus.subscribed("document")
    bus.listen(["http"], lambda record: None)
    end()
    assert bus.kinds == {"http"}
    assert not bus.subscribed("document")


def test_kinds_are_those_that_are_still_taken() -> None:
    bus = RecordBus([])
    kinds = bus.kinds
    assert not kinds
    files, all_ = bus.subscribe(["file"], 1), bus.subscribe([], 9)
    assert kinds == set(RECORD_TYPES)
    all_.close()
    bus.publish(Http("", "", "", "", 200, "", 0.0))  # what is closed is found out when a record comes
    assert kinds == {"file"}
    assert bus.wants("file") and not bus.wants("http")
    files.close()
