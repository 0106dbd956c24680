"""T.sim.http and T.sim.flow: what is sent is what the engine finds in the packets, whatever happens on the way."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import Config
from engine.capture.turns import FAULTS
from tests.scripts import ALERTS, on_file, plugin
from tests.simulation.rig import records_file, simulate, simulation

WHOLE = [each for each in ("", *FAULTS) if each != "loss"]


def lua(**fields: object) -> str:
    """A table of Lua."""

    def value(each: object) -> str:
        if isinstance(each, bytes):
            return '"' + "".join(f"\\{byte:03d}" for byte in each) + '"'
        if isinstance(each, dict):
            return lua(**each)
        if isinstance(each, list):
            return "{ " + ", ".join(map(value, each)) + " }"
        return f'"{each}"' if isinstance(each, str) else str(each)

    return "{ " + ", ".join(f"{name} = {value(each)}" for name, each in fields.items()) + " }"


def http(**fields: object) -> str:
    """A call of T.sim.http between two hosts."""
    return f"T.sim.http({lua(**{'client': '10.0.0.5', 'server': '198.51.100.7', **fields})})\n"


def flow(**fields: object) -> str:
    """The same of T.sim.flow."""
    return f"T.sim.flow({lua(**{'client': '10.0.0.5', 'server': '198.51.100.7', 'port': 4000, **fields})})\n"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(min_size=1, max_size=9_000),
    fault=st.sampled_from(WHOLE),
    framing=st.sampled_from(["length", "chunked", "close"]),
    mss=st.integers(200, 2_000),
    seed=st.integers(0, 1_000),
)
def test_the_body_that_is_found_is_the_one_that_was_sent(
    body: bytes, fault: str, framing: str, mss: int, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sent = http(uri="/x.bin", body=body, fault=fault, framing=framing, mss=mss)
        script = on_file(
            "local f = io.open(path, 'rb') T.loginfo((f:read('*a'):gsub('.', function(c) "
            "return ('%02x'):format(c:byte()) end))) f:close()"
        )
        collector, result = simulate(Path(folder), simulation(sent), script, seed=seed)
    assert collector.logged() == [body.hex()]
    assert [each.size for each in collector.of("file")] == [len(body)]
    assert result.ok and result.stats.source.received == result.stats.decode.packets


def test_several_exchanges_of_a_connection_and_uploads(tmp_path: Path) -> None:
    exchanges = [
        {"uri": "/a", "host": "one.example", "body": b"first", "content_type": "text/plain"},
        {"uri": "/b", "upload": b"given " * 40, "status": 201},
        {"uri": "/c", "method": "HEAD", "body": b"none of it is sent"},
        {"uri": "/d", "status": 404, "body": b"no", "framing": "close"},
    ]
    collector, _ = simulate(tmp_path, simulation(http(exchanges=exchanges)))
    messages = collector.of("http")
    assert [(each.method, each.uri, each.status) for each in messages] == [
        ("GET", "/a", 200), ("POST", "/b", 201), ("HEAD", "/c", 200), ("GET", "/d", 404),
    ]  # fmt: skip
    assert (messages[0].host, messages[0].content_type) == ("one.example", "text/plain")
    assert sorted(each.size for each in collector.of("file")) == [2, 5, 240]
    assert len(collector.of("flow")) == 1


def test_what_is_lost_is_counted_and_the_file_is_partial(tmp_path: Path) -> None:
    sent = http(body=b"x" * 40_000, fault="loss")
    end = "local c = T.sim.counts() T.loginfo(c.sim_packets .. ' ' .. c.sim_segments_lost)"
    collector, result = simulate(tmp_path, simulation(sent, onend=end))
    packets, lost = map(int, collector.logged()[-1].split())
    file = collector.of("file")[0]
    assert 1 <= lost <= 3 and packets == result.stats.decode.packets
    assert (file.complete, file.reason) == (False, "gap")
    assert 40_000 - file.size == result.stats.decode.gap_bytes == 1_460 * lost


def test_flows_have_what_was_sent(tmp_path: Path) -> None:
    sent = flow(sends=[b"hello", b"you " * 1_000, b"bye"], mss=1_000) + flow(
        protocol="udp", port=53, sends=[b"q", b"a"]
    )
    collector, result = simulate(tmp_path, simulation(sent))
    flows = {each.proto: each for each in collector.of("flow")}
    assert {flows["udp"].a_packets, flows["udp"].z_packets} == {1}
    assert flows["tcp"].a_packets + flows["tcp"].z_packets + 2 == result.stats.decode.packets
    assert result.stats.decode.segments == 1 + 4 + 1
    assert result.stats.decode.malformed == 0


def test_each_goes_its_own_way_in_time(tmp_path: Path) -> None:
    sent = (
        http(uri="/late", body=b"x" * 99, at=7)
        + http(uri="/now", body=b"x" * 99, rtt=1)
        + "T.sim.after(3, function() "
        + http(uri="/after", body=b"x" * 99, client="2001:db8::1", server="2001:db8::2")
        + " end)"
    )
    collector, result = simulate(tmp_path, simulation(sent))
    times = [(each.uri, round(each.time - 1_700_000_000, 1)) for each in collector.of("http")]
    assert times == [("/now", 0.5), ("/after", 3.0), ("/late", 7.0)]
    assert 7.0 < result.seconds < 8.0


def test_a_hook_may_send_more_until_it_has_enough(tmp_path: Path) -> None:
    again = on_file(
        "count = (count or 0) + 1 if count < 5 then "
        "T.sim.http{ client = '10.0.0.5', server = '10.0.0.9', body = 'more' } end"
    )
    collector, _ = simulate(tmp_path, simulation(http(body=b"first")), again)
    assert len(collector.of("file")) == 5


def test_one_that_holds_the_loop_loses_packets(tmp_path: Path) -> None:
    sent = "T.sim.every(0.01, function(_, now) if now > 60 then return false end\n" + http(body=b"x" * 9_000) + "end)"
    _, busy = simulate(tmp_path, simulation(sent), on_file("T.sim.spend(50)"), until=70)
    assert busy.ok
    assert busy.stats.source.received == busy.stats.source.dropped + busy.stats.decode.packets
    assert busy.stats.source.dropped > 0


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, workers: int) -> None:
    source = simulation(
        """
        local gaps, faults = T.sim.random("gaps"), { "", "reorder", "loss", "overlap", "repeat", "no handshake" }
        T.sim.every(function() return gaps:exponential(0.5) end, function(engine, now)
          T.sim.http{ client = "10.0.0." .. gaps:choice{ 1, 2, 3 }, server = "10.0.1.1", uri = "/" .. now .. ".bin",
            body = ("%08x"):format(gaps:uniform(0, 2 ^ 30)):rep(800), fault = gaps:choice(faults) }
        end)
        """
    )
    script = on_file(
        """T.async:schedule{ data = path,
          onexecute = function(p)
            local f = io.open(p, "rb") local s = f:read("*a") f:close()
            return #s .. s:sub(1, 8)
          end,
          onresult = function(later, data, result) later:add_alert(ALERTS, nil, "k", 1, result) end }""",
        before=f'local ALERTS = "{ALERTS}"',
    )
    first, second, other = (
        hashlib.sha256(
            records_file(tmp_path, source, script, seed=seed, until=30, config=Config(workers=workers))
        ).digest()
        for seed in (4, 4, 5)
    )
    assert first == second != other


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        (http(client="nobody"), "T.sim.http: client must be an address such as 10.0.0.5; not 'nobody'"),
        ("T.sim.http{}", "T.sim.http: server must be an address such as 10.0.0.5; it is missing"),
        (http(client="::1"), "T.sim.http: client and server must both be of IPv4 or both of IPv6"),
        (http(fault="fire"), "T.sim.http: fault must be one of"),
        (http(file=b"x"), "T.sim.http: no field is named 'file'"),
        (http(uri=b"/a\r\nX: y"), "T.sim.http: uri must be a text of one line"),
        (http(port=70_000), "T.sim.http: port must be a whole number from 1 to 65535; not 70000"),
        (http(rtt=-1), "T.sim.http: rtt must be a number of seconds; not -1"),
        (http(exchanges=[]), "T.sim.http: exchanges must be a list"),
        (http(exchanges=[{}], body=b"x"), "T.sim.http: body belongs into the tables of exchanges"),
        (http(exchanges=[{"framing": "close"}, {}]), 'T.sim.http: framing "close" is for the last exchange'),
        (http(exchanges=[{"status": 100}]), "T.sim.http, exchanges: status must be a whole number from 200 to 599"),
        (flow(), "T.sim.flow: sends must be a list"),
        (flow(sends=[1]), "T.sim.flow: sends must be a list of strings"),
        (flow(protocol="udp", sends=[b"x"], fault="loss"), "T.sim.flow: faults are of TCP"),
        (flow(protocol="udp", sends=[b"x" * 66_000]), "T.sim.flow: 66,000 bytes of sends are no datagram"),
        ("T.sim.flow(7)", "T.sim.flow: takes a table"),
    ],
)
def test_what_is_wrong_is_told_at_the_line_of_the_script(tmp_path: Path, call: str, wrong: str) -> None:
    collector, _ = simulate(tmp_path, simulation(call.rstrip()))
    told = " ".join(collector.logged("ERROR"))
    assert wrong in told
    assert "s0.lua" in told and "onbegin" in told


def test_an_inputfilter_is_the_source_already(tmp_path: Path) -> None:
    both = plugin("inputfilter = { step = function() return false end },\n")
    sending = simulation("T.sim.after(1, function() " + http() + " end)")
    collector, _ = simulate(tmp_path, sending, both)
    assert "has an inputfilter, and one source at a time is read" in " ".join(collector.logged("ERROR"))
