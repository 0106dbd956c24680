"""Stream events to hooks, files and records."""

from __future__ import annotations

import gzip
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.capture.extract import FileExtractor
from engine.capture.http import SEARCH_BYTES
from engine.capture.ramfs import Ramfs
from engine.values.config import CaptureLimits
from engine.values.records import File, Http
from tests.capture.http_talk import CHUNKED, answer, chunk, get

FLOW = b"06A:0A.00.00.05:p-9C40_0A.00.00.09:p-0050"
POST = b"POST /up HTTP/1.1\r\nHost: h\r\nContent-Type: Text/Plain; charset=x\r\nContent-Length: 4\r\n\r\n"


class Bench:
    """An extractor, hooks that note their calls and read files while they may, and the records."""

    def __init__(self, ramfs: Ramfs, *, chunk_bytes: int = 1000, wants: str = "files payload", **limits: int) -> None:
        self.wants_files = "files" in wants
        self.wants_payload = "payload" in wants
        self.wants_raw = "raw" in wants
        self.ramfs = ramfs
        self.calls: list[tuple[Any, ...]] = []
        self.bodies: dict[str, bytes] = {}
        self.written: dict[str, bytes] = {}
        self.raw: dict[int, dict[int, bytes]] = {0: {}, 1: {}}
        self.records: list[Http | File] = []
        self.refuse: tuple[object, ...] = ()
        self.kept: list[int] = []
        self.keep = False
        self.kinds = {"http", "file"}
        self.x = FileExtractor(
            CaptureLimits(**limits), ramfs, self, self.records.append, chunk_bytes=chunk_bytes, kinds=self.kinds
        )
        self.position = [0, 0]

    def filter_flow(self, time: float, flow: bytes) -> bool:
        self.calls.append(("filter_flow",))
        return "flow" not in self.refuse

    def filter(self, time: float, flow: bytes, head: bytes, is_request: bool) -> bool:
        self.calls.append(("filter", is_request))
        return is_request not in self.refuse

    def payload_raw(self, time: float, flow: bytes, direction: int, seekpos: int, data: bytes) -> None:
        self.raw[direction][seekpos] = data

    def payload_http(self, time, flow, path, request, response, direction, seekpos, data) -> None:  # type: ignore[no-untyped-def]
        body = self.bodies.setdefault(path, b"")
        assert seekpos == len(body)
        self.bodies[path] = body + data
        self.calls.append(("payload", direction, seekpos, len(data)))

    def file(self, time, flow, path, request, response, length, is_partial, lease) -> None:  # type: ignore[no-untyped-def]
        self.written[path] = Path(path).read_bytes()
        assert len(self.written[path]) == length
        assert path.endswith(".part") == is_partial
        self.calls.append(("file", length, is_partial))
        if self.keep:
            self.ramfs.hold(lease)
            self.kept.append(lease)

    def flow_end(self, time: float, flow: bytes) -> None:
        self.calls.append(("flow_end",))

    def say(self, *events: tuple[int, bytes], end: bool = True, stream: int = 1) -> bool:
        """Open a connection, give it the events, end it; returns what the last `data` did."""
        self.position = [0, 0]
        self.x.open(stream, FLOW, True, 0.0)
        wanted = True
        for direction, data in events:
            wanted = self.x.data(stream, direction, self.position[direction], 1.0, data)
            self.position[direction] += len(data)
        if end:
            self.x.end(stream, 2.0)
        return wanted

    @property
    def files(self) -> list[File]:
        return [each for each in self.records if isinstance(each, File)]

    @property
    def https(self) -> list[Http]:
        return [each for each in self.records if isinstance(each, Http)]


@pytest.fixture
def ramfs(tmp_path: Path) -> Iterator[Ramfs]:
    made = Ramfs(tmp_path)
    yield made
    assert list(tmp_path.iterdir()) == [], "every file is released or removed"
    made.close()


def test_hooks_are_called_in_order(ramfs: Ramfs) -> None:
    bench = Bench(ramfs)
    bench.say((0, get("/a")), (1, answer(b"hello")))
    assert bench.calls == [
        ("filter_flow",),
        ("filter", True),
        ("filter", False),
        ("payload", 1, 0, 5),
        ("payload", 1, 5, 0),
        ("file", 5, False),
        ("flow_end",),
    ]


def test_records_of_an_upload_and_its_answer(ramfs: Ramfs) -> None:
    bench = Bench(ramfs)
    bench.say((0, POST + b"data"), (1, answer(b"{}", status=201, extra="Content-Type: application/json\r\n")))
    flow = FLOW.decode()
    assert bench.https == [Http(flow, "POST", "h", "/up", 201, "application/json", 1.0)]
    sent, received = bench.files
    assert (sent.direction, sent.status, sent.content_type, sent.size) == ("request", 0, "text/plain", 4)
    assert (received.direction, received.status, received.method, received.size) == ("response", 201, "POST", 2)
    assert bench.written == {sent.path: b"data", received.path: b"{}"}
    assert bench.x.stats().files == bench.x.stats().files_complete == 2


@pytest.mark.parametrize("response", [answer(), b"HTTP/1.1 304 N\r\n\r\n", b"HTTP/1.1 204 N\r\n\r\n"])
def test_an_empty_response_ends_once_for_hooks_and_yields_no_file_record(ramfs: Ramfs, response: bytes) -> None:
    bench = Bench(ramfs)
    bench.say((0, get()), (1, response))
    assert bench.calls[3:] == [("payload", 1, 0, 0), ("file", 0, False), ("flow_end",)]
    assert bench.files == []


def test_a_decoded_body_longer_than_a_chunk_comes_in_parts(ramfs: Ramfs) -> None:
    text = b"0123456789" * 250
    packed = gzip.compress(text)
    bench = Bench(ramfs)
    bench.say(
        (0, get("/big")),
        (1, answer(packed[:9], extra="Content-Encoding: gzip\r\n", length=len(packed))),
        (1, packed[9:]),
    )
    path = bench.files[0].path
    assert bench.written == {f"{path}.{at}.part": text[at : at + 1000] for at in (0, 1000, 2000)}
    assert bench.bodies == {path: text}
    assert [each for each in bench.calls if each[0] == "file"] == [("file", 1000, True)] * 2 + [("file", 500, True)]


@pytest.mark.parametrize(("size", "parts"), [(999, 0), (1000, 0), (1001, 2), (2000, 2), (200_001, 201)])
def test_the_size_decides_on_parts_and_none_is_empty(ramfs: Ramfs, size: int, parts: int) -> None:
    bench = Bench(ramfs)
    bench.say((0, get()), (1, answer(bytes(size))))
    assert sum(name.endswith(".part") for name in bench.written) == parts
    assert b"".join(bench.written.values()) == bytes(size)
    assert all(bench.written.values())


def test_a_held_file_stays_until_it_is_released(ramfs: Ramfs) -> None:
    bench = Bench(ramfs)
    bench.keep = True
    bench.say((0, get()), (1, answer(b"hello")))
    assert Path(bench.files[0].path).read_bytes() == b"hello"
    ramfs.release(bench.kept[0])
    assert not Path(bench.files[0].path).exists()


def test_streaming_mode_writes_nothing(ramfs: Ramfs) -> None:
    bench = Bench(ramfs, wants="payload")
    bench.say((0, get()), (1, answer(b"hello")))
    assert bench.written == {}
    assert list(bench.bodies.values()) == [b"hello"]
    assert next(iter(bench.bodies)).startswith(str(ramfs.directory))
    assert bench.files[0].path == ""


def test_a_refused_flow_is_forgotten(ramfs: Ramfs) -> None:
    bench = Bench(ramfs)
    bench.refuse = ("flow",)
    assert not bench.say((0, get()), (1, answer(b"x")))
    assert bench.calls == [("filter_flow",)]
    assert bench.records == []


def test_a_refused_request_skips_its_response_unasked(ramfs: Ramfs) -> None:
    bench = Bench(ramfs)
    bench.refuse = (True,)
    bench.say((0, POST + b"data"), (1, answer(b"x")))
    assert bench.calls == [("filter_flow",), ("filter", True), ("flow_end",)]
    assert [type(each) for each in bench.records] == [Http]


def test_a_refused_response_is_not_extracted_but_framed(ramfs: Ramfs) -> None:
    bench = Bench(ramfs)
    bench.refuse = (False,)
    bench.say((0, get("/1") + get("/2")), (1, answer(b"x") + answer(b"y")))
    assert [each.uri for each in bench.https] == ["/1", "/2"]
    assert bench.files == []


def test_raw_bytes_come_with_their_positions_and_true_direction(ramfs: Ramfs) -> None:
    bench = Bench(ramfs, wants="raw")
    bench.x.open(1, FLOW, False, 0.0)
    bench.x.data(1, 0, 0, 1.0, b"HTTP/1.1 101 Up")
    bench.x.data(1, 0, 15, 1.0, b"grade\r\n\r\n")
    assert bench.x.data(1, 1, 0, 1.0, b"\x81\x05after")
    bench.x.end(1, 2.0)
    assert bench.raw == {1: {0: b"HTTP/1.1 101 Up", 15: b"grade\r\n\r\n"}, 0: {0: b"\x81\x05after"}}
    assert bench.calls[-1] == ("flow_end",)
    assert bench.x.stats().upgrades == 1


def test_after_an_upgrade_nothing_more_is_wanted_and_the_flow_ends(ramfs: Ramfs) -> None:
    bench = Bench(ramfs)
    assert not bench.say((0, get("/ws")), (1, b"HTTP/1.1 101 S\r\n\r\n"))
    assert bench.calls.count(("flow_end",)) == 1
    assert [(each.uri, each.status) for each in bench.https] == [("/ws", 101)]
    assert not bench.x.data(1, 1, 0, 1.0, b"x")


def test_other_protocols_reach_no_hook(ramfs: Ramfs) -> None:
    bench = Bench(ramfs, wants="raw files payload")
    assert not bench.say((0, b"\x16\x03\x01"))
    assert bench.calls == []


def test_unanswered_requests_are_recorded_at_the_end(ramfs: Ramfs) -> None:
    bench = Bench(ramfs)
    bench.say((0, get("/1")))
    assert [(each.uri, each.status, each.content_type) for each in bench.https] == [("/1", 0, "")]


def test_reasons_for_partial_bodies(ramfs: Ramfs) -> None:
    bench = Bench(ramfs, decoded_bytes=2000)
    bench.say((0, get("/cut")), (1, answer(b"01", length=9)))
    bench.say((0, get("/decode")), (1, answer(b"no gzip", extra="Content-Encoding: gzip\r\n")))
    bench.say((0, get("/limit")), (1, answer(gzip.compress(bytes(3000)), extra="Content-Encoding: gzip\r\n")))
    bench.say((0, get("/chunks")), (1, CHUNKED + chunk(b"ab") + b"!\r\n"))
    bench.x.open(1, FLOW, True, 0.0)
    bench.x.data(1, 0, 0, 1.0, get("/gap"))
    bench.x.data(1, 1, 0, 1.0, answer(b"01", length=9))
    bench.x.gap(1, 1, 99, 3, 1.0)
    bench.x.data(1, 1, 99, 1.0, b"5678")
    bench.x.data(1, 1, 99, 1.0, b"HTTP/1.0 200 OK\r\n\r\nopen")
    bench.x.close()
    assert [(each.uri, each.size, each.reason, each.complete) for each in bench.files] == [
        ("/cut", 2, "cut", False),
        ("/decode", 0, "decode", False),
        ("/limit", 2000, "limit", False),
        ("/chunks", 2, "decode", False),
        ("/gap", 6, "gap", False),
        ("", 4, "cut", False),
    ]
    stats = bench.x.stats()
    assert (stats.files, stats.files_partial, stats.decode_errors, stats.bombs) == (6, 6, 2, 1)
    assert stats.file_bytes == sum(each.size for each in bench.files)


def test_write_errors_are_counted_and_leave_nothing(ramfs: Ramfs, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def full(path: str, data: bytes) -> None:
        append(path, data[:1])
        raise OSError(28, "No space left on device")

    append = ramfs.append
    monkeypatch.setattr(ramfs, "append", full)
    bench = Bench(ramfs)
    with caplog.at_level(logging.WARNING, "offpath.capture"):
        bench.say((0, get()), (1, answer(bytes(5000))), (1, answer(b"")))
    assert "No space left" in caplog.text
    assert [(each.path, each.size, each.complete) for each in bench.files] == [("", 5000, True)]
    assert bench.x.stats().write_errors == 2
    assert list(bench.bodies.values()) == [bytes(5000), b""]


def test_text_of_the_wire_is_never_refused(ramfs: Ramfs) -> None:
    bench = Bench(ramfs)
    bench.say((0, b"GET /\xff\xc3\xa9 HTTP/1.1\r\nHost: \xfe\r\n\r\n"), (1, answer(b"x")))
    assert (bench.https[0].uri, bench.https[0].host) == ("/\\xff\xe9", "\\xfe")


def test_a_stream_id_used_again_ends_the_old_connection(ramfs: Ramfs) -> None:
    bench = Bench(ramfs)
    bench.say((0, get("/1")), end=False)
    bench.say((0, get("/2")), (1, answer(b"2")))
    assert [(each.uri, each.status) for each in bench.https] == [("/1", 0), ("/2", 200)]


@given(st.data())
def test_any_cut_gives_the_same_bodies_and_counts(data: st.DataObject) -> None:
    text = b"some text, again and again " * 90
    packed = gzip.compress(text, mtime=0)
    talk = [
        (0, POST + b"data" + get("/2") + get("/3")),
        (
            1,
            answer()
            + CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
            + chunk(packed)
            + b"0\r\n\r\n",
        ),
        (1, b"HTTP/1.0 200 OK\r\n\r\nclosed"),
    ]
    events = []
    for direction, said in talk:
        cuts = sorted(data.draw(st.lists(st.integers(1, len(said) - 1), max_size=5, unique=True)))
        events += [(direction, said[a:b]) for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True)]
    ramfs = Ramfs()
    try:
        bench = Bench(ramfs)
        bench.say(*events)
        digests = sorted(hashlib.sha256(each).hexdigest() for each in bench.bodies.values())
        assert digests == sorted(hashlib.sha256(each).hexdigest() for each in (b"data", b"", text, b"closed"))
        assert b"".join(bench.written.values()) == b"".join(bench.bodies.values())
        stats = bench.x.stats()
        assert (stats.requests, stats.responses, stats.files, stats.file_bytes) == (3, 3, 3, 4 + len(text) + 6)
        assert list(ramfs.directory.iterdir()) == []
    finally:
        ramfs.close()


def test_records_that_nobody_takes_are_not_made_but_counted(ramfs: Ramfs) -> None:
    bench = Bench(ramfs)
    bench.kinds.clear()
    bench.say((0, get("/a")), (1, answer(b"one")), end=False)
    bench.kinds.add("file")
    bench.x.data(1, 0, bench.position[0], 1.0, get("/b"))
    bench.x.data(1, 1, bench.position[1], 1.0, answer(b"two"))
    assert bench.https == []
    assert [each.uri for each in bench.files] == ["/b"]
    assert (bench.x.stats().responses, bench.x.stats().files, bench.x.stats().file_bytes) == (2, 2, 6)
    bench.x.end(1, 2.0)


def test_a_body_that_lasts_until_the_end_is_cut_when_its_connection_is_given_up(ramfs: Ramfs) -> None:
    for wants in ("files", "files raw"):
        bench = Bench(ramfs, wants=wants)
        noise = b"\0" * (2 * SEARCH_BYTES)
        bench.say((0, get("/a")), (1, b"HTTP/1.0 200 OK\r\n\r\nopen"), (0, noise))
        assert [(each.size, each.reason) for each in bench.files] == [(4, "cut")]
        assert bench.x.stats().malformed == 1


def test_heads_with_too_many_fields_are_counted(ramfs: Ramfs) -> None:
    bench = Bench(ramfs, header_fields=2)
    request = b"GET /a HTTP/1.1\r\nHost: a.org\r\nX: 1\r\nY: 2\r\n\r\n"
    bench.say((0, request), (1, b"HTTP/1.0 200 OK\r\nA: 1\r\nB: 2\r\nContent-Length: 1\r\n\r\nto the end"))
    assert [(each.host, each.size, each.reason) for each in bench.files] == [("a.org", 10, "")]
    assert bench.x.stats().fields_cut == 2
