"""Attributes of connections: what is found in HTTP and TLS, and what scripts post; to handlers and flow monitors."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Capture, Engine
from engine.capture.applications import tls
from engine.capture.extract import FileExtractor
from tests.capture.tls_talk import CHANGE, CLIENT, SERVER, certificate, chain_body, message, record
from tests.pipeline.talks import FLOW, Talk, capture_of, flow_monitor, handler, scripts_of
from tests.scripts import Collector, on_event, on_file, run_capture

REQUEST = b"POST /a?b=c HTTP/1.1\r\nHost: h.example\r\nUser-Agent: curl/8\r\nContent-Length: 2\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 2\r\n\r\n"
NAMED = "T.loginfo(name .. '=' .. #value)"


def http() -> Talk:
    return Talk().begin().say(0, REQUEST + b"ab").say(1, RESPONSE + b"cd").finish()


def handshake(*chain: bytes) -> Talk:
    done = record(message(14))
    said = Talk().begin().say(0, record(CLIENT)).say(1, record(SERVER) + record(message(11, chain_body(*chain))) + done)
    return said.say(0, CHANGE).say(1, CHANGE + record(b"secret", 23)).finish()


async def heard(tmp_path: Path, said: Talk, *texts: str) -> list[str]:
    collector, _ = await run_capture(capture_of(tmp_path, said), scripts_of(tmp_path, *texts))
    assert collector.logged("ERROR") == []
    return collector.logged()


def shown(block: bytes) -> str:
    return block.decode().replace("\r", "~").replace("\n", "~")


async def test_http(tmp_path: Path) -> None:
    assert await heard(tmp_path, http(), handler("onattribute")) == [
        "attribute 1000  ",
        f"attribute 1000 HTTP-Header {shown(REQUEST)}",
        "attribute 1000 URI /a?b=c",
        "attribute 1000 Host h.example",
        "attribute 1000 User-Agent curl/8",
        f"attribute 1000 HTTP-Header {shown(RESPONSE)}",
        "attribute 1000 Content-Type text/html; charset=utf-8",
        "attribute 1000 ^D ",
    ]


async def test_tls(tmp_path: Path) -> None:
    chain = certificate("a.example", "Middle CA", "A, Inc."), certificate("Middle CA", "Root CA", "Middle")
    assert await heard(tmp_path, handshake(*chain), handler(onattribute=NAMED)) == [
        "=0",
        f"TLS:RECORD={len(record(CLIENT))}",
        f"TLS:RECORD={len(record(SERVER))}",
        "TLS:CIPHER=4",
        f"TLS:RECORD={len(record(message(11, chain_body(*chain))))}",
        "TLS:O=7",
        "TLS:CA:ROOT=7",
        "TLS:CA:INTER=9",
        "TLS:RECORD=9",
        "TLS:RECORD=6",
        "TLS:RECORD=6",
        "^D=0",
    ]
    values = handler(onattribute="if name:sub(1, 5) == 'TLS:C' or name == 'TLS:O' then T.loginfo(value) end")
    told = await heard(tmp_path, handshake(*chain), values)
    assert told == ["C02F", "A, Inc.", "Root CA", "Middle CA"]


async def test_a_tls_record_is_one_whole_handshake_message(tmp_path: Path) -> None:
    """As scripts check it, whatever records and segments it came in."""
    both = message(2, b"x" * 30) + message(14)
    said = Talk().begin().say(0, record(CLIENT)[:20]).say(0, record(CLIENT)[20:]).say(1, record(both)).finish()
    body = (
        "if name ~= 'TLS:RECORD' then return end "
        "local length = value:byte(7) * 65536 + value:byte(8) * 256 + value:byte(9) "
        "T.loginfo(value:byte(6) .. ' ' .. tostring(length == #value - 9))"
    )
    assert await heard(tmp_path, said, handler(onattribute=body)) == ["1 true", "2 true", "14 true"]


async def test_a_flow_monitor_has_other_arguments(tmp_path: Path) -> None:
    assert await heard(tmp_path, Talk().begin().say(0, REQUEST).finish(), flow_monitor()) == [
        f"{FLOW} 1000  0 ",
        f"{FLOW} 1000 HTTP-Header {len(REQUEST)} {shown(REQUEST)}",
        f"{FLOW} 1000 URI 6 /a?b=c",
        f"{FLOW} 1000 Host 9 h.example",
        f"{FLOW} 1000 User-Agent 6 curl/8",
        f"{FLOW} 1000 ^D 0 ",
    ]


async def test_a_flow_that_handlers_refuse_is_told_to_flow_monitors_only(tmp_path: Path) -> None:
    refusing = handler("onattribute", filter="return false")
    assert await heard(tmp_path, http(), refusing) == []
    told = await heard(tmp_path, http(), refusing, flow_monitor("T.loginfo(name)"))
    assert told == ["", "HTTP-Header", "URI", "Host", "User-Agent", "HTTP-Header", "Content-Type", "^D"]


async def test_messages_that_file_monitors_refuse_are_told_all_the_same(tmp_path: Path) -> None:
    files = on_file("T.loginfo('a file')").replace(
        "filex_monitor = {", "filex_monitor = { filter_flow = function() return false end,"
    )
    collector, stats = await run_capture(
        capture_of(tmp_path, http()), scripts_of(tmp_path, files, handler(onattribute=NAMED))
    )
    assert len(collector.logged()) == 8
    assert collector.of("http") == collector.of("file") == []
    assert stats.http.files == 0


async def test_files_are_the_same_with_and_without_attributes(tmp_path: Path) -> None:
    path = capture_of(tmp_path, http())
    files = on_file("T.loginfo(path:match('[^/]+$') .. length)")
    alone, _ = await run_capture(path, scripts_of(tmp_path, files))
    both, _ = await run_capture(path, scripts_of(tmp_path, files, handler(onattribute="")))
    assert alone.logged() == both.logged() != []
    assert [each.size for each in both.of("file")] == [2, 2]


async def test_a_script_s_attributes_go_to_the_others(tmp_path: Path) -> None:
    """And not to itself."""
    poster = handler(
        "onattribute", onpayload="if direction == 1 then engine:add_flow_attribute(flow:id(), 'mine', 'a\\0b') end"
    )
    told = await heard(
        tmp_path, Talk().begin().say(0, b"x"), poster, handler(onattribute=NAMED), flow_monitor("T.loginfo(name)")
    )
    assert sorted(told) == sorted(["attribute 1000  ", "=0", "", "mine=3", "mine", "attribute 1000 ^D ", "^D=0", "^D"])


async def test_attributes_may_be_posted_without_any_capture(tmp_path: Path) -> None:
    scripts = scripts_of(
        tmp_path,
        on_event(f"engine:add_flow_attribute('{FLOW}', 'name', event)"),
        flow_monitor("tell(flow:id(), name, value)"),
    )
    collector = Collector()
    async with Engine(scripts, sinks=[collector]) as engine:
        await engine.emit("t", "value")
    assert collector.logged() == [f"{FLOW} name value"]
    assert [(each.name, each.value) for each in collector.of("flow_update")] == [("attribute:name", "value")]


async def test_two_scripts_that_answer_each_other_are_bounded(tmp_path: Path) -> None:
    answer = "T.n = (T.n or 0) + 1 if T.n < 50 then engine:add_flow_attribute(flow, 'x', tostring(T.n)) end"
    start = on_event(f"engine:add_flow_attribute('{FLOW}', 'x', 'start')")
    collector = Collector()
    scripts = scripts_of(tmp_path, start, flow_monitor(answer), flow_monitor(answer))
    async with Engine(scripts, sinks=[collector]) as engine:
        await engine.emit("t", "go")
    assert engine.stats.messages.delivered == engine.stats.messages.posted == 2 + 2 * 49


@pytest.mark.parametrize(
    ("text", "tls_read", "http_read"),
    [
        (handler(onpayload=""), False, False),
        (handler(onattribute=""), True, True),
        (flow_monitor(""), True, True),
        (on_file(""), False, True),
        (handler(onattribute="", filter="return false"), False, False),
    ],
    ids=["payload", "attributes", "monitor", "files", "refused"],
)
async def test_only_what_is_wanted_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, tls_read: bool, http_read: bool
) -> None:
    read: set[str] = set()
    for owner, name, what in ((tls.TlsConnection, "data", "tls"), (FileExtractor, "data", "http")):
        method = getattr(owner, name)

        def spy(*args: object, what: str = what, method: object = method) -> object:
            read.add(what)
            return method(*args)  # type: ignore[operator]

        monkeypatch.setattr(owner, name, spy)
    async with Engine(scripts_of(tmp_path, text)) as engine:
        await engine.run(Capture(capture_of(tmp_path, handshake(b"no certificate"))))
    assert read == {what for what, is_read in (("tls", tls_read), ("http", http_read)) if is_read}


async def test_a_monitor_that_raises_is_contained(tmp_path: Path) -> None:
    collector, _ = await run_capture(
        capture_of(tmp_path, http()), scripts_of(tmp_path, flow_monitor("error('broken')"), handler(onattribute=NAMED))
    )
    assert len(collector.logged()) == len(collector.logged("ERROR")) == 8
    assert collector.logged("ERROR")[0].startswith("flowmonitor.onflowattribute: ")
