"""A dashboard beside a running engine, by real sockets: what it says, who it leaves, and what it leaves behind."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine import Capture, Engine
from engine.capture.synth import synthesize
from engine.dashboard import Address, ServeError, app, serve, server
from engine.dashboard import feed as feed_module
from engine.dashboard.address import bind
from engine.sources import Replay
from tests.dashboard.asking import ANY, events, served
from tests.scripts import ALERTS, on_event, write
from tests.sinks.measured import window
from tests.support import eventually, no_threads_left

ALERT = on_event(f'engine:add_alert("{ALERTS}", nil, "sig", 2, event)')
FAIL = on_event('error("no such order")')


async def until(stream: AsyncIterator[tuple[str, Any]], name: str) -> Any:
    """The next event of a name."""
    async with asyncio.timeout(20):
        async for found, data in stream:
            if found == name:
                return data
    raise AssertionError(f"no {name} came")


async def test_metrics_are_those_of_the_engine(tmp_path: Path) -> None:
    async with served([write(tmp_path, ALERT)]) as (engine, _, client):
        await engine.emit("x", "hello")
        answer = await client.get("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        found = {each.name: each.samples for each in text_string_to_metric_families(answer.text)}
        assert found["offpath_events_handled"][0].value == 1
        assert found["offpath_alerts"][0].value == 1
        assert found["offpath_dashboard_feed_clients"][0].value == 0


async def test_an_engine_without_a_source_is_healthy() -> None:
    async with served() as (_, _, client):
        answer = await client.get("/healthz")
        assert (answer.status_code, answer.json()) == (200, {"healthy": True, "reasons": []})


async def test_an_engine_is_healthy_while_it_reads_and_not_after(tmp_path: Path) -> None:
    synthesize(tmp_path / "in.pcap", files=3, seed=1)
    async with served() as (engine, _, client):
        assert engine.reading is None
        reading = asyncio.create_task(engine.run(Replay([tmp_path / "in.pcap"], 0.001)))
        await eventually(lambda: engine.reading and engine.stats.decode.packets)
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/api/now")).status_code == 200
        engine.end_source()
        await reading
        answer = await client.get("/healthz")
        assert (answer.status_code, answer.json()["reasons"]) == (503, ["the source is over"])
        assert engine.reading is False
        await engine.run(Capture(tmp_path / "in.pcap"))
        assert (await client.get("/healthz")).status_code == 503


async def test_a_loop_that_was_held_is_no_healthy_one(tmp_path: Path) -> None:
    hold = "local ends = os.clock() + 1.2 while os.clock() < ends do end"
    async with served([write(tmp_path, on_event(hold))]) as (engine, _, client):
        await client.get("/healthz")
        await engine.emit("x", "y")
        async with asyncio.timeout(20):
            while (answer := await client.get("/healthz")).status_code == 200:  # until the meter has seen it
                pass
        assert re.match(r"the loop was held for \d+\.\d s", answer.json()["reasons"][0])


async def test_events_begin_with_the_state_and_go_on_with_what_comes(tmp_path: Path) -> None:
    scripts = [write(tmp_path, ALERT, "alert.lua"), write(tmp_path, FAIL, "fail.lua")]
    async with served(scripts, title="a test") as (engine, _, client):
        await engine.emit("x", "before")
        async with client.stream("GET", "/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            stream = events(answer)
            hello = await until(stream, "hello")
            assert (hello["title"], hello["asks"], hello["window"]) == ("a test", False, None)
            assert [each["text"] for each in hello["alerts"]] == ["before"]
            assert "no such order" in hello["logs"][0]["text"]
            await engine.emit("x", "after <b>")
            notes = (await until(stream, "notes"))["notes"]
            assert [each["kind"] for each in notes] == ["alert", "log"]
            assert notes[0]["text"] == "after <b>"
            tick = await until(stream, "tick")
            assert tick["totals"]["alerts"] == 2
            assert {each["script"] for each in tick["plugins"]} == {"alert.lua", "fail.lua"}
            await engine.flush(window(0))
            assert (await until(stream, "window"))["groups"][0]["name"] == "Hosts"


async def test_a_flood_of_alerts_is_no_flood_of_messages(tmp_path: Path) -> None:
    many = f'for i = 1, 5000 do engine:add_alert("{ALERTS}", nil, "sig", 2, "a" .. i) end'
    async with served([write(tmp_path, on_event(many))]) as (engine, _, client):
        async with client.stream("GET", "/events") as answer:
            stream = events(answer)
            await until(stream, "hello")
            await engine.emit("x", "y")
            notes = (await until(stream, "notes"))["notes"]
            assert [notes[0]["text"], notes[-1]["text"], len(notes)] == ["a4951", "a5000", 50]
        assert engine.stats.records.dropped == 0


async def test_too_many_listeners_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "CLIENTS", 1)
    async with served() as (_, _, client), client.stream("GET", "/events") as first:
        await until(events(first), "hello")
        refused = await client.get("/events")
        assert refused.status_code == 503
        assert "offpath_dashboard_feed_refused_total 1" in (await client.get("/metrics")).text


async def test_a_listener_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(app, "PATIENCE", 0.2)
    async with served([write(tmp_path, ALERT)]) as (engine, serving, client):
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", serving.port))
            deaf.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")

            async def dropped() -> bool:
                await engine.emit_batch("x", ["long " * 200] * 50)
                await asyncio.sleep(0.05)  # messages are gathered for a tenth of a second
                return "offpath_dashboard_feed_dropped_total 1" in (await client.get("/metrics")).text

            async with asyncio.timeout(30):
                while not await dropped():
                    pass
            found = {
                each.name: each.samples[0].value
                for each in text_string_to_metric_families((await client.get("/metrics")).text)
                if each.samples
            }
            assert found["offpath_dashboard_feed_clients"] == 0
            sums = [found[f"offpath_dashboard_feed_{name}"] for name in ("sent", "skipped")]
            assert found["offpath_dashboard_feed_messages"] == sum(sums)


async def test_connections_that_ask_nothing_are_cut_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE", 5)
    async with served() as (_, serving, client):
        with ExitStack() as opened:
            for _ in range(30):
                opened.enter_context(socket.create_connection(("127.0.0.1", serving.port)))
            found = ""
            async with asyncio.timeout(20):
                while not re.search(r"^offpath_dashboard_server_cut_total [1-9]", found, re.MULTILINE):
                    with suppress(httpx.TransportError):  # this one may be cut, too
                        found = (await client.get("/metrics")).text


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    levels = [logging.getLogger(name).level for name in ("uvicorn", "uvicorn.error", "uvicorn.access")]
    tasks = asyncio.all_tasks()
    with no_threads_left():
        async with served() as (engine, serving, client):
            assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
            answer = await client.send(client.build_request("GET", "/events"), stream=True)
            await until(events(answer), "hello")
        bind(Address(port=serving.port)).close()
    assert engine.listen("alert", call=print)() is None
    await eventually(lambda: asyncio.all_tasks() == tasks)
    assert [logging.getLogger(name).level for name in ("uvicorn", "uvicorn.error", "uvicorn.access")] == levels


async def test_the_end_is_soon_whatever_listeners_do() -> None:
    with socket.socket() as deaf:
        loop = asyncio.get_running_loop()
        async with Engine() as engine:
            async with serve(engine, ANY) as serving:
                deaf.connect(("127.0.0.1", serving.port))
                deaf.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n")  # the rest never comes
                began = loop.time()
            assert loop.time() - began < 5


async def test_an_error_of_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(LookupError, match="mine"):
        async with served():
            raise LookupError("mine")


async def test_a_cancelled_block_ends_the_server() -> None:
    ports: list[int] = []

    async def run() -> None:
        async with served() as (_, serving, _):
            ports.append(serving.port)
            await asyncio.sleep(60)

    running = asyncio.create_task(run())
    await eventually(lambda: ports)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    bind(Address(port=ports[0])).close()


async def test_a_port_in_use_is_an_error_before_anything_is_served() -> None:
    async with served() as (engine, serving, _):
        with pytest.raises(ServeError, match="Address already in use"):
            async with serve(engine, f"127.0.0.1:{serving.port}"):
                pass


async def test_a_token_is_made_where_others_can_reach_the_address() -> None:
    async with Engine() as engine, serve(engine, "0.0.0.0:0") as serving:
        assert serving.token
        assert serving.url_with_token.endswith(f"/?token={serving.token}")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{serving.port}", trust_env=False) as client:
            assert (await client.get("/metrics")).status_code == 401
            bearer = {"authorization": f"Bearer {serving.token}"}
            assert (await client.get("/metrics", headers=bearer)).status_code == 200


async def test_a_token_that_is_given_is_asked_for_on_loopback_too() -> None:
    async with served(token="secret") as (_, serving, client):
        assert (serving.token, (await client.get("/")).status_code) == ("secret", 401)
        page = await client.get("/", params={"token": "secret"}, follow_redirects=True)
        assert (page.status_code, str(page.url)) == (200, serving.url)


@pytest.mark.parametrize("token", ["", " ", "two words", "ä", "line\nline"])
async def test_what_can_be_no_token_is_refused(token: str) -> None:
    with pytest.raises(ServeError, match="visible ASCII"):
        async with served(token=token):
            pass


async def test_two_dashboards_of_one_engine() -> None:
    async with served() as (engine, first, _), serve(engine, ANY) as second:
        assert first.port != second.port
