"""`Feed`: packets that the program itself brings."""

from __future__ import annotations

import asyncio
import time

import pytest

from engine import ConfigError, Engine, EngineError
from engine.capture.packets import Endpoint, Send, TcpConversation
from engine.sources import Feed
from tests.scripts import Collector


def frames() -> list[bytes]:
    talk = TcpConversation(Endpoint("10.0.0.5", 40_000), Endpoint("10.0.0.9", 80))
    request, body = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    return [talk.frame(each) for each in talk.play([Send(True, request), Send(False, body)])]


async def test_packets_are_handled_as_they_come_and_to_the_end() -> None:
    feed, collector = Feed(), Collector()
    async with Engine(sinks=[collector]) as engine:
        running = asyncio.create_task(engine.run(feed))
        for frame in frames():
            assert feed.put(time.time(), frame)
            await asyncio.sleep(0)
        while feed.pending:  # noqa: ASYNC110 - a feed tells nobody else
            await asyncio.sleep(0.001)
        assert not running.done()
        feed.end()
        await running
        assert engine.stats.decode.packets == engine.stats.source.received == len(frames())
    assert [each.uri for each in collector.of("http")] == ["/a"]
    assert [each.size for each in collector.of("file")] == [5]
    assert len(collector.of("flow")) == 1


async def test_packets_from_before_the_run_count() -> None:
    feed = Feed()
    for frame in frames():
        feed.put(1_000.0, frame)
    feed.end()
    async with Engine() as engine:
        await engine.run(feed)
        assert engine.stats.decode.packets == len(frames())


async def test_what_finds_no_room_is_dropped_and_counted() -> None:
    feed = Feed(limit_bytes=300)
    taken = [feed.put(1_000.0, each) for each in frames()]
    assert taken.count(False) > 0
    feed.end()
    assert not feed.put(1_000.0, b"x")
    async with Engine() as engine:
        await engine.run(feed)
        source = engine.stats.source
        assert engine.stats.decode.packets == taken.count(True)
        assert (source.received, source.dropped) == (len(taken) + 1, taken.count(False) + 1)


async def test_the_end_of_the_source_is_that_of_the_feed() -> None:
    feed = Feed()
    async with Engine() as engine:
        running = asyncio.create_task(engine.run(feed))
        while not feed.is_read:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0)
        engine.end_source()
        await running
        assert feed.ended and not feed.put(1.0, b"x")


async def test_it_can_be_read_once() -> None:
    feed = Feed(name="mine")
    feed.end()
    async with Engine() as engine:
        await engine.run(feed)
        with pytest.raises(EngineError, match="mine: a feed can be read once"):
            await engine.run(feed)


async def test_cancelling_the_run_leaves_nothing_behind() -> None:
    feed = Feed()
    async with Engine() as engine:
        running = asyncio.create_task(engine.run(feed))
        while not feed.is_read:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        other = Feed()
        other.end()
        await engine.run(other)


@pytest.mark.parametrize("limits", [{"limit_bytes": 0}, {"link_type": -1}, {"link_type": 70_000}])
def test_limits(limits: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(limits))):
        Feed(**limits)


def test_no_packet_is_that_long() -> None:
    with pytest.raises(ValueError, match="262,145 bytes"):
        Feed().put(1.0, bytes(262_145))
