"""What the platform finds: resources for monitors, documents, records of DNS and TLS, each only when it is wanted."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest

from engine import Capture, Engine, EngineStats
from engine.pipeline import dns, http, tls
from engine.values.groups import (
    DNS_DOCUMENTS,
    DNS_RESOURCES,
    FILE_HASHES,
    HTTP_DOCUMENTS,
    HTTP_URIS,
    SSL_CERTS,
    SSL_DOCUMENTS,
)
from engine.values.records import Dns, DnsAnswer, DnsQuestion, Record, Resource, Tls
from engine.values.sources import Replay
from tests.capture.packets import CLIENT, SERVER, udp
from tests.capture.tls_talk import CHANGE, certificate, chain_body, message, record, server_body
from tests.capture.tls_talk import CLIENT as HELLO
from tests.pipeline.talks import FLOW, Talk, capture_of, handler, scripts_of
from tests.scripts import Collector, on_resource, run_capture

NAME = b"\3WWW\7example\3com\0"
RESOLVER = ("10.0.0.9", 53)
QUERY = struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + NAME + b"\0\1\0\1"
ANSWER = (
    struct.pack(">HHHHHH", 7, 0x8180, 1, 1, 0, 0) + NAME + b"\0\1\0\1" + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1"
)
DNS_FLOW = "11A:0A.00.00.01:p-9C40_0A.00.00.09:p-0035"
SHOW = (
    "T.loginfo(resource:uri() .. '|' .. resource:label() .. '|' .. resource:flow():id() .. '|' .. resource:timestamp())"
)


def lookup(start: float = 1000.5) -> list[tuple[float, bytes]]:
    return [(start, udp(CLIENT, RESOLVER, QUERY)), (start + 0.1, udp(RESOLVER, CLIENT, ANSWER))]


def web() -> Talk:
    said = Talk().begin().say(0, b"GET /a?b=c HTTP/1.1\r\nHost: h.example\r\n\r\n")
    said.say(1, b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 4\r\n\r\nbody")
    return said.say(0, b"HEAD /lost HTTP/1.1\r\n\r\n").finish()


def secure(*chain: bytes) -> Talk:
    said = Talk().begin().say(0, record(HELLO))
    said.say(1, record(message(2, server_body(cipher=0x009C))) + record(message(11, chain_body(*chain))))
    return said.say(0, CHANGE).say(1, CHANGE).finish()


def monitor(group: str) -> str:
    return on_resource(SHOW, guid=f'"{group}"')


async def monitored(tmp_path: Path, group: str, *said: Talk | list[tuple[float, bytes]]) -> tuple[Collector, list[str]]:
    collector, _ = await run_capture(capture_of(tmp_path, *said), scripts_of(tmp_path, monitor(group)))
    assert {each.group for each in collector.of("resource")} == {group}
    assert {each.script for each in collector.of("resource")} == {""}
    return collector, collector.logged()


async def subscribed(path: Path, *kinds: str, scripts: tuple[str, ...] = ()) -> tuple[list[Record], EngineStats]:
    async with Engine(scripts_of(path.parent, *scripts)) as engine:
        records = engine.subscribe(*kinds)
        await engine.run(Capture(path))
    return [each async for each in records], engine.stats


async def test_dns_resources(tmp_path: Path) -> None:
    collector, told = await monitored(tmp_path, DNS_RESOURCES, lookup())
    assert told == [f"www.example.com|WWW.example.com A  192.0.2.1|{DNS_FLOW}|1000"]
    assert [each.time for each in collector.of("resource")] == [pytest.approx(1000.6)]


async def test_http_uris(tmp_path: Path) -> None:
    _, told = await monitored(tmp_path, HTTP_URIS, web())
    assert told == [
        f"GET h.example /a?b=c|usec:100000 status:200 type:image/png|{FLOW}|1000",
        f"HEAD - /lost||{FLOW}|1000",
    ]


async def test_ssl_certs(tmp_path: Path) -> None:
    der = certificate("a.example", "Root CA")
    _, told = await monitored(tmp_path, SSL_CERTS, secure(der, b"unreadable"))
    uri, label, flow, _ = "".join(told).split("|")
    assert uri == f"SHA1:{hashlib.sha1(der).hexdigest()} a.example"
    assert label.count("-----BEGIN CERTIFICATE-----") == 2
    assert flow == FLOW


async def test_file_hashes(tmp_path: Path) -> None:
    _, told = await monitored(tmp_path, FILE_HASHES, web())
    assert told == [f"SHA256:{hashlib.sha256(b'body').hexdigest()}|/a?b=c|{FLOW}|1000"]


async def test_no_hash_of_a_body_that_is_not_whole(tmp_path: Path) -> None:
    said = Talk().begin().say(0, b"GET / HTTP/1.1\r\n\r\n")
    said.say(1, b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\nbody").finish()
    collector, _ = await run_capture(capture_of(tmp_path, said), scripts_of(tmp_path, monitor(FILE_HASHES)))
    assert [each.complete for each in collector.of("file")] == [False]
    assert collector.of("resource") == []


async def test_resources_are_made_for_those_who_ask_for_them(tmp_path: Path) -> None:
    path = capture_of(tmp_path, lookup(), web())
    records, stats = await subscribed(path, "resource")
    assert {each.group for each in records if isinstance(each, Resource)} == {DNS_RESOURCES, HTTP_URIS, FILE_HASHES}
    assert stats.resources == len(records)


async def test_resources_that_nobody_asks_for_are_not_made(tmp_path: Path) -> None:
    path = capture_of(tmp_path, lookup(), web())
    collector, _ = await run_capture(path, scripts_of(tmp_path, monitor(SSL_CERTS)))
    assert collector.of("resource") == collector.of("document") == []


async def test_a_resource_is_counted_and_delivered_like_those_of_scripts(tmp_path: Path) -> None:
    scripts = scripts_of(tmp_path, monitor(DNS_RESOURCES), monitor(DNS_RESOURCES))
    collector, stats = await run_capture(capture_of(tmp_path, lookup()), scripts)
    assert len(collector.logged()) == stats.messages.delivered == stats.messages.posted == 2
    assert stats.resources == len(collector.of("resource")) == 1


async def test_documents(tmp_path: Path) -> None:
    der = certificate()
    secured = secure(der)
    secured.records = [(time + 10, frame) for time, frame, *_ in secured.records]
    records, _ = await subscribed(capture_of(tmp_path, lookup(), web(), secured), "document")
    by_group = {group: [each.text for each in records if each.group == group] for group in {r.group for r in records}}
    assert by_group.keys() == {DNS_DOCUMENTS, HTTP_DOCUMENTS, SSL_DOCUMENTS}
    assert [text.split("\t")[:2] for text in by_group[DNS_DOCUMENTS]] == [["QUERY", "ID: 7"], ["RESPONSE", "ID: 7"]]
    assert [text.split("\r\n")[0] for text in by_group[HTTP_DOCUMENTS]] == [
        "GET /a?b=c HTTP/1.1",
        "HTTP/1.1 200 OK",
        "HEAD /lost HTTP/1.1",
    ]
    assert by_group[HTTP_DOCUMENTS][2] == "HEAD /lost HTTP/1.1\r\n\r\n"
    [certificates] = by_group[SSL_DOCUMENTS]
    assert certificates.startswith("NAME:C=US, O=Example\\, Inc., CN=a.example\nSHA1:")
    assert [each.id for each in records] == [f"{number:x}" for number in range(1, len(records) + 1)]
    assert {each.flow for each in records} == {FLOW, DNS_FLOW}


async def test_sinks_alone_get_no_documents(tmp_path: Path) -> None:
    collector, stats = await run_capture(capture_of(tmp_path, lookup(), web()))
    assert collector.of("document") == []
    assert len(collector.of("dns")) == stats.dns.queries + stats.dns.responses == 2


async def test_dns_records(tmp_path: Path) -> None:
    over_tcp = Talk(port=40001, server_port=53).say(0, struct.pack(">H", len(QUERY)) + QUERY[:9]).say(0, QUERY[9:])
    multicast = [(1003.0, udp(("10.0.0.1", 5353), ("224.0.0.251", 5353), QUERY))]
    records, stats = await subscribed(capture_of(tmp_path, lookup(), over_tcp, multicast), "dns")
    question = (DnsQuestion("WWW.example.com", "A"),)
    first, second, *others = sorted(records, key=lambda each: each.transport, reverse=True)
    assert first == Dns(DNS_FLOW, "dns", "udp", 7, False, 0, question, (), True, 1000.5)
    assert second.answers == (DnsAnswer("WWW.example.com", "A", "192.0.2.1", 60),)
    assert [(each.service, each.transport, each.questions) for each in others] == [
        ("mdns", "udp", question),
        ("dns", "tcp", question),
    ]
    assert (stats.dns.queries, stats.dns.responses) == (3, 1)


async def test_tls_records(tmp_path: Path) -> None:
    der = certificate("a.example", "Root CA")
    [found], stats = await subscribed(capture_of(tmp_path, secure(der)), "tls")
    assert (found.flow, found.transport, found.sni, found.alpn) == (FLOW, "tcp", "a.example", ("h2", "http/1.1"))
    assert (found.versions, found.version, found.cipher) == (("0303",), "0303", "009c")
    assert found.ja4.startswith("t12d0202h2_")
    assert (len(found.ja3), len(found.ja3s)) == (32, 32)
    assert (found.subject, found.issuer) == (
        "C=US, O=Example\\, Inc., CN=a.example",
        "C=US, O=Example\\, Inc., CN=Root CA",
    )
    assert found.sha1 == hashlib.sha1(der).hexdigest()
    assert found.time == pytest.approx(1000.6)
    assert (stats.tls.connections, stats.tls.client_hellos, stats.tls.chains) == (1, 1, 1)


async def test_a_handshake_that_breaks_off_is_a_record_too(tmp_path: Path) -> None:
    [found], _ = await subscribed(capture_of(tmp_path, Talk().begin().say(0, record(HELLO))), "tls")
    assert (found.sni, found.version, found.cipher, found.ja3s, found.sha1) == ("a.example", "", "", "", "")


async def test_the_certificate_of_a_client_is_not_taken_for_the_server_s(tmp_path: Path) -> None:
    mine, theirs = certificate("client"), certificate("server")
    said = Talk().begin().say(0, record(HELLO) + record(message(11, chain_body(mine))))
    said.say(1, record(message(2, server_body())) + record(message(11, chain_body(theirs))))
    [found], _ = await subscribed(capture_of(tmp_path, said), "tls")
    assert found.subject.endswith("CN=server")


async def test_server_names_in_quic(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    from tests.capture.test_quic import HELLO as QUIC_HELLO
    from tests.capture.test_quic import crypto, initial

    half = len(QUIC_HELLO) // 2
    target = ("10.0.0.7", 443)
    sent = [
        (1.0, udp(CLIENT, target, initial(crypto(0, QUIC_HELLO[:half])))),
        (1.5, udp(target, CLIENT, b"\xc3 the server's")),
        (2.0, udp(CLIENT, target, initial(crypto(half, QUIC_HELLO[half:]), count=3))),
        (2.5, udp(CLIENT, target, b"\x43 encrypted")),
    ]
    [found], stats = await subscribed(capture_of(tmp_path, sent), "tls")
    assert (found.transport, found.sni, found.alpn, found.time) == ("quic", "q.example", ("h3",), 2.0)
    assert found.ja4.startswith("q")
    assert (stats.quic.connections, stats.quic.client_hellos) == (1, 1)


@pytest.mark.parametrize(
    ("kinds", "scripts", "made"),
    [
        (("flow",), (), set()),
        (("dns",), (), {"DnsFinder"}),
        (("tls",), (), {"TlsFinder", "QuicFinder"}),
        (("http",), (), set()),
        (("document",), (), {"DnsFinder", "TlsFinder", "HttpFinder"}),
        (("flow",), (monitor(DNS_RESOURCES),), {"DnsFinder"}),
        (("flow",), (monitor(SSL_CERTS),), {"TlsFinder"}),
        (("flow",), (monitor(HTTP_URIS),), {"HttpFinder"}),
        (("flow",), (monitor(FILE_HASHES),), {"HttpFinder"}),
        (("flow",), (handler(onpayload=""),), set()),
        (("flow",), (handler(onattribute=""),), {"TlsFinder", "HttpFinder"}),
    ],
    ids=lambda each: "-".join(each) if isinstance(each, tuple) and len("".join(each)) < 20 else None,
)
async def test_only_what_is_wanted_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, ...], scripts: tuple[str, ...], made: set[str]
) -> None:
    built: set[str] = set()
    for finder in (dns.DnsFinder, tls.TlsFinder, tls.QuicFinder, http.HttpFinder):

        def note(self: object, *args: object, build: object = finder.__init__) -> None:
            built.add(type(self).__name__)
            build(self, *args)  # type: ignore[operator]

        monkeypatch.setattr(finder, "__init__", note)
    await subscribed(capture_of(tmp_path, lookup(), web()), *kinds, scripts=scripts)
    assert built == made


async def test_dns_over_tcp_is_looked_for_at_its_ports_only(tmp_path: Path) -> None:
    """A connection of any other port costs no more than its beginning."""
    said = Talk(server_port=SERVER[1])
    for _ in range(1000):
        said.say(0, struct.pack(">H", len(QUERY)) + QUERY)
    records, stats = await subscribed(capture_of(tmp_path, said), "dns")
    assert records == []
    assert stats.dns.queries == 0


async def test_broken_datagrams_and_handshakes_are_counted(tmp_path: Path) -> None:
    broken = [(1.0, udp(CLIENT, RESOLVER, b"\0\1\2")), (2.0, udp(CLIENT, RESOLVER, QUERY[:20]))]
    hello = bytearray(record(HELLO))
    hello[43] = 0xFF  # the length of the session id
    said = Talk().begin().say(0, bytes(hello))
    collector, stats = await run_capture(capture_of(tmp_path, broken, said))
    assert collector.of("dns") == collector.of("tls") == []
    assert (stats.dns.malformed, stats.tls.malformed) == (2, 1)
    summary = collector.of("summary")[0].counts
    assert (summary["dns_malformed"], summary["tls_malformed"], summary["malformed"]) == (2, 1, 0)


async def test_every_pass_of_a_replay_finds_the_same(tmp_path: Path) -> None:
    path = capture_of(tmp_path, lookup(), secure(certificate()))
    async with Engine(scripts_of(tmp_path, handler("onpayload", "onattribute", "onterminateflow"))) as engine:
        records, logs = engine.subscribe("dns", "tls"), engine.subscribe("log")
        await engine.run(Replay(path, speed=1e6, loops=3))
    found = [each async for each in records]
    assert [each.kind for each in found].count("dns") == 3 * 2
    assert len({each.sni for each in found if isinstance(each, Tls)}) == 1
    words = [each.text.split()[0] async for each in logs]
    assert [words.count(word) for word in ("payload", "end")] == [3 * 4, 3]


async def test_the_same_capture_gives_the_same_records_in_the_same_order(tmp_path: Path) -> None:
    path = capture_of(tmp_path, lookup(), web(), lookup(1002))
    kinds = ("dns", "tls", "http", "document")
    first, _ = await subscribed(path, *kinds)
    second, _ = await subscribed(path, *kinds)
    assert first == second
    assert len(first) > 8
