"""Messages for many listeners: bounded, counted, and never in the way of others."""

from __future__ import annotations

import asyncio
import json
import math

from hypothesis import given
from hypothesis import strategies as st

from engine.dashboard.feed import CLIENTS, WAITING, Client, Feed, encode


def make(state: bytes = b"state;") -> Feed:
    return Feed(lambda: state)


def connect(feed: Feed) -> Client:
    client = feed.connect()
    assert client is not None
    return client


async def test_a_listener_gets_the_state_and_then_what_comes() -> None:
    feed = make()
    client = connect(feed)
    feed.publish(b"in the state already")
    assert await client.take() == b"state;"
    feed.publish(b"a")
    feed.publish(b"b")
    assert await client.take() == b"ab"


async def test_a_slow_listener_loses_messages_and_gets_the_state_again() -> None:
    feed = make()
    slow, quick = connect(feed), connect(feed)
    await slow.take()
    await quick.take()
    for _ in range(WAITING + 5):
        feed.publish(b"x")
        assert await quick.take() == b"x"
    assert feed.stats().skipped == WAITING + 5
    assert await slow.take() == b"state;"
    feed.publish(b"y")
    assert await slow.take() == b"y"


async def test_there_are_so_many_listeners_and_no_more() -> None:
    feed = make()
    clients = [connect(feed) for _ in range(CLIENTS)]
    assert feed.connect() is None
    assert feed.stats().refused == 1
    feed.disconnect(clients[0])
    assert feed.connect() is not None
    assert feed.stats().clients == CLIENTS


async def test_the_end_reaches_who_waits_and_lets_nobody_in() -> None:
    feed = make()
    client = connect(feed)
    await client.take()
    waiting = asyncio.create_task(client.take())
    await asyncio.sleep(0)
    feed.close()
    assert await waiting is None
    assert feed.connect() is None


async def test_a_listener_that_was_too_slow_is_counted_once() -> None:
    feed = make()
    client = connect(feed)
    feed.disconnect(client, slow=True)
    feed.disconnect(client, slow=True)
    assert (feed.stats().dropped, feed.stats().clients, feed.stats().connected) == (1, 0, 1)


@given(st.lists(st.sampled_from(["publish", "publish", "publish", "take", "connect", "disconnect"]), max_size=120))
def test_every_message_is_sent_or_skipped_or_waits(steps: list[str]) -> None:
    async def go() -> None:
        feed = make()
        clients: list[Client] = []
        for step in steps:
            if step == "publish":
                feed.publish(b"x")
            elif step == "connect":
                clients.append(connect(feed))
            elif step == "disconnect" and clients:
                feed.disconnect(clients.pop())
            elif step == "take" and clients and (clients[-1].waiting or clients[-1].behind):
                assert await clients[-1].take()
        counts = feed.stats()
        assert counts.messages == counts.sent + counts.skipped + counts.waiting

    asyncio.run(go())


def test_an_event_is_two_lines_whatever_is_in_it() -> None:
    data = {"text": "a\nb\r\n\ndata: x\u2028\udc80", "number": math.inf, "list": [math.nan, 1.5]}
    message = encode("notes", data)
    assert message.startswith(b"event: notes\ndata: ")
    assert message.count(b"\n") == 3
    assert b"\r" not in message
    assert json.loads(message.split(b"data: ", 1)[1]) == data | {"number": None, "list": [None, 1.5]}
