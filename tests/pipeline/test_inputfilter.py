"""inputfilter: a script makes the packets and alerts of a run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine import Capture, Config, Engine, EngineError, EngineStats, Script
from engine.capture.synth import synthesize
from tests.capture.packets import CLIENT, SERVER, handshake, pcap, tcp, udp
from tests.scripts import ALERTS, Collector, on_alert, on_file, plugin, run_capture, write
from tests.support import eventually

READ_PCAP = """
local file = io.open(T.args, "rb")
file:read(24)
local function u32(s, at) local a, b, c, d = s:byte(at, at + 3) return a + b * 256 + c * 65536 + d * 16777216 end
"""
STEP_PCAP = """
step = function(packet, engine)
  local head = file:read(16)
  if not head then return false end
  packet:set_packet(u32(head, 1), u32(head, 5), 1, file:read(u32(head, 9)) or "")
  return true
end
"""


def made_by(body: str, before: str = "") -> str:
    return before + plugin(f"inputfilter = {{ {body} }}")


async def run_script(
    tmp_path: Path, source: str, *others: Path, args: str = "", **config: object
) -> tuple[Collector, EngineStats]:
    """Run a script as the source to its end."""
    collector, path = Collector(), write(tmp_path, source, "filter.lua")
    settings = Config(args=args, **config)  # type: ignore[arg-type]
    async with asyncio.timeout(60), Engine([path, *others], config=settings, sinks=[collector]) as engine:
        assert engine.load_errors == ()
        await engine.run(Script(path))
    return collector, engine.stats


async def test_packets_of_a_script_are_those_of_the_capture_that_it_reads(tmp_path: Path) -> None:
    made = synthesize(tmp_path / "in.pcap", files=20, seed=11, faults=True)
    files = write(tmp_path, on_file('T.loginfo(path:match("[^/]+$") .. " " .. length)'), "files.lua")
    expected, stats = await run_capture(made.path, [files])
    found, told = await run_script(tmp_path, made_by(STEP_PCAP, READ_PCAP), files, args=str(made.path))
    assert told.decode == stats.decode
    assert told.http == stats.http
    for kind in ("flow", "http"):
        assert found.of(kind) == expected.of(kind)
    assert found.logged() == expected.logged()
    assert len(found.logged()) >= 20


async def test_scripts_of_the_same_name_are_sources_of_their_own(tmp_path: Path) -> None:
    alert = 'T.loginfo("{}") return false'
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        body = made_by(f"step = function() {alert.format(folder)} end")
        paths.append(write(tmp_path / folder, body, "filter.lua"))
    collector = Collector()
    async with asyncio.timeout(60), Engine(paths, sinks=[collector]) as engine:
        assert engine.load_errors == ()
        await engine.run(Script(paths[1]))
        await engine.run(Script(paths[0]))
    assert collector.logged() == ["b", "a"]


async def test_bytes_that_wait_behind_a_hole_outlive_their_batch(tmp_path: Path) -> None:
    """A segment comes early; the one before it comes a thousand packets and some megabytes later."""
    body = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n" + bytes(range(40))
    packets = [
        *handshake(100, 200),
        (1.0, tcp(CLIENT, SERVER, 101, body, ack=201)),
        (1.1, tcp(SERVER, CLIENT, 201 + 50, answer[50:], ack=101 + len(body))),
        *((1.2, udp(CLIENT, ("10.0.0.9", 999), b"n" * 1400)) for _ in range(3000)),
        (1.3, tcp(SERVER, CLIENT, 201, answer[:50], ack=101 + len(body))),
    ]
    (tmp_path / "in.pcap").write_bytes(pcap(packets))
    files = write(tmp_path, on_file('T.loginfo(io.open(path, "rb"):read("*a"))'), "files.lua")
    collector, stats = await run_script(tmp_path, made_by(STEP_PCAP, READ_PCAP), files, args=str(tmp_path / "in.pcap"))
    assert collector.logged() == [bytes(range(40)).decode()]
    assert stats.decode.gaps == 0


async def test_link_types_may_change_from_packet_to_packet(tmp_path: Path) -> None:
    body = """
    step = function(packet)
      n = (n or 0) + 1
      local ip = "\\69\\0\\0\\30\\0\\0\\0\\0\\64\\17\\0\\0\\10\\0\\0\\1\\10\\0\\0\\2\\4\\0\\0\\53\\0\\10\\0\\0hi"
      if n % 3 == 0 then packet:set_packet("12", "7", 101, ip)
      else packet:set_packet(10 + n, 0, 1, ("x"):rep(12) .. "\\8\\0" .. ip) end
      return n < 700
    end"""
    collector, stats = await run_script(tmp_path, made_by(body), store=tmp_path / "out")
    assert (stats.decode.decoded, stats.decode.malformed) == (700, 0)
    (flow,) = collector.of("flow")
    assert (flow.a_packets, flow.start) == (700, 11.0)
    assert stats.store.files == 2


@pytest.mark.parametrize("last", ["false", "nil", ""])
async def test_step_is_called_until_it_says_false_or_nothing(tmp_path: Path, last: str) -> None:
    body = f"step = function() n = (n or 0) + 1 T.loginfo(n) if n < 40 then return true end return {last} end"
    collector, stats = await run_script(tmp_path, made_by(body))
    assert collector.logged() == [str(n) for n in range(1, 41)]
    assert stats.decode.packets == 0


async def test_what_step_tells_the_engine_has_the_time_that_it_set(tmp_path: Path) -> None:
    body = f"""
    step = function(packet, engine)
      n = (n or 0) + 1
      packet:set_timestamp("1500000000." .. n, nil)
      engine:add_alert("{ALERTS}", nil, n, 1, "m")
      packet:set_timestamp(1500000100, 250000)
      engine:update_counter("{ALERTS}", "k", 0, 2)
      T.loginfo(engine:timestamp())
      return n < 3
    end"""
    other = write(tmp_path, on_alert("T.logwarning(alert:sigid() .. ' ' .. alert:timestamp())"), "a.lua")
    collector, _ = await run_script(tmp_path, made_by(body), other)
    assert [each.time for each in collector.of("alert")] == [1500000000.1, 1500000000.2, 1500000000.3]
    assert collector.logged() == ["1500000100"] * 3
    assert collector.logged("WARN") == ["1 1500000000", "2 1500000000", "3 1500000000"]
    assert {each.time for each in collector.of("log") if each.level == "INFO"} <= {0.0, 1500000100.25} | {
        each.time for each in collector.of("log") if each.time > 1_600_000_000
    }
    assert collector.of("counter")[0].value == 6


ALERT = """{
  AlertGroupGUID = "{b5f1decb-51d5-4395-b71b-6fa730b772d9}", TimestampSecs = 1500000000, TimestampUsecs = "250000",
  SigIDKey = 2001219, SigIDLabel = "ET SCAN", SensorID = 3, ProtocolFamily = 0, SigGenerator = 1, SigRev = 20,
  EventID = require("ffi").new("uint64_t", 77), AcknowledgeFlag = 1, SourceIP = "10.1.2.3", SourcePort = 22,
  DestIP = "10.1.2.4", DestPort = "40000", Protocol = 6, ClassificationKey = 4, Priority = 2,
  AlertDetails = "details", AlertStatus = "FIRED", Unknown = {} }"""


async def test_every_field_of_an_alert_reaches_its_record(tmp_path: Path) -> None:
    body = f"step_alert = function() n = (n or 0) + 1 if n == 1 then return {ALERT} end return false end"
    other = write(tmp_path, on_alert("T.loginfo(alert:sigid() .. ' ' .. alert:source_ip())"), "a.lua")
    collector, stats = await run_script(tmp_path, made_by(body), other)
    (alert,) = collector.of("alert")
    assert (alert.group, alert.time, alert.sigid) == (ALERTS, 1500000000.25, "2001219")
    assert alert.flow == "06A:0A.01.02.04:p-9C40_0A.01.02.03:p-0016"
    assert (alert.classification, alert.priority, alert.message, alert.status) == ("4", 2, "details", "FIRED")
    assert alert.extra == {
        "sensor_id": 3,
        "protocol_family": 0,
        "sig_generator": 1,
        "sig_rev": 20,
        "event_id": 77,
        "acknowledge_flag": 1,
        "protocol": 6,
        "source_ip": "10.1.2.3",
        "source_port": "22",
        "dest_ip": "10.1.2.4",
        "dest_port": "40000",
        "sig_label": "ET SCAN",
    }
    assert [(each.key, each.name, each.value) for each in collector.of("key")] == [("2001219", "label", "ET SCAN")]
    assert collector.logged() == ["2001219 10.1.2.3"]
    assert stats.alerts == 1


async def test_defaults_of_an_alert_and_addresses_that_make_no_flow(tmp_path: Path) -> None:
    least = f'AlertGroupGUID = "{ALERTS}", TimestampSecs = 5, SigIDKey = "k"'
    rows = [
        f"{{ {least} }}",
        f'{{ {least}, SourceIP = "host", DestIP = "10.0.0.1" }}',
        f'{{ {least}, SourceIP = "fd00::1", DestIP = "fd00::2", SourcePort = "igmp", SigIDKeyLabel = "L" }}',
        "{ TimestampSecs = 5, SigIDKey = 'k' }",
        f'{{ AlertGroupGUID = "{ALERTS}", SigIDKey = 4 }}',
    ]
    before = f"local rows = {{ {', '.join(rows)} }}\n"
    body = "step_alert = function() return table.remove(rows, 1) or false end"
    collector, _ = await run_script(tmp_path, made_by(body, before))
    alerts = collector.of("alert")
    address = "FD00" + "0" * 28
    assert [each.flow for each in alerts] == ["", "", f"00B:{address[:-1]}1:p-0000_{address[:-1]}2:p-0000"]
    assert {(each.classification, each.priority, each.message, each.status) for each in alerts} == {
        ("c-xx", 1, "", "ALARM")
    }
    assert [each.extra["sig_label"] for each in alerts] == ["", "", "L"]
    assert alerts[0].extra["source_ip"] == "0.0.0.0"
    assert len([line for line in collector.logged("WARN") if "needs AlertGroupGUID" in line]) == 1


async def test_both_hooks_and_no_alert_is_left_behind_at_the_end(tmp_path: Path) -> None:
    body = f"""
    step = function() n = (n or 0) + 1 return n < 3 end,
    step_alert = function() a = (a or 0) + 1
      if a <= 600 then return {{ AlertGroupGUID = "{ALERTS}", TimestampSecs = a, SigIDKey = a }} end end"""
    collector, _ = await run_script(tmp_path, made_by(body))
    assert [each.sigid for each in collector.of("alert")] == [str(n) for n in range(1, 601)]


async def test_alerts_are_asked_for_again_while_there_are_none(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    body = f"""
    step_alert = function()
      local file = io.open("{marker}")
      if not file then return nil end
      file:close() os.remove("{marker}")
      return {{ AlertGroupGUID = "{ALERTS}", TimestampSecs = 7, SigIDKey = "x" }} end"""
    path = write(tmp_path, made_by(body))
    async with asyncio.timeout(60), Engine([path]) as engine:
        run = asyncio.ensure_future(engine.run(Script(path)))
        for seen in (1, 2):
            marker.write_text("")
            await eventually(lambda seen=seen: engine.stats.alerts == seen)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run


async def test_an_error_names_script_hook_and_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    body = """
    step = function() n = (n or 0) + 1
      if n == 2 then
        error("broken line")
      end
      return n < 5 end,
    step_alert = function() local x = nil + 1 end"""
    collector, stats = await run_script(tmp_path, made_by(body))
    errors = collector.logged("ERROR")
    assert "inputfilter.step: filter.lua:5: broken line" in errors[0]
    assert all("inputfilter.step_alert: filter.lua:8: attempt to perform arithmetic" in each for each in errors[1:])
    (told,) = stats.plugins
    assert next(each.errors for each in told.hooks if each.name == "step") == 1
    assert {each.script for each in collector.of("log")} == {"filter.lua"}


async def test_errors_without_an_end_end_the_source(tmp_path: Path) -> None:
    _, stats = await run_script(tmp_path, made_by("step = function() error('always') end"))
    assert stats.script_errors == 100


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("set_packet('x', 0, 1, 'a')", "the time must be given as numbers"),
        ("set_packet(-1, 0, 1, 'a')", "no time is -1"),
        ("set_packet(0/0, 0, 1, 'a')", "no time is"),
        ("set_packet(1, 0, 'x', 'a')", "the link type must be a number"),
        ("set_packet(1, 0, 1, {})", "the bytes must be a string"),
        ("set_packet(1, 0, 1, ('x'):rep(300000))", "300000 bytes are no packet"),
        ("set_timestamp('x')", "the time must be given as numbers"),
    ],
)
async def test_what_is_no_packet_is_refused_at_the_line_of_the_script(tmp_path: Path, call: str, says: str) -> None:
    collector, stats = await run_script(tmp_path, made_by(f"step = function(packet) packet:{call} end"))
    assert "filter.lua:2: packet:set_" in collector.logged("ERROR")[0]
    assert says in collector.logged("ERROR")[0]
    assert stats.decode.packets == 0


async def test_a_step_that_makes_too_much_is_told_so(tmp_path: Path) -> None:
    body = "step = function(packet) for i = 1, 1e9 do packet:set_packet(1, 0, 1, ('x'):rep(100000)) end end"
    collector, stats = await run_script(tmp_path, made_by(body))
    assert "too many packets in one step" in collector.logged("ERROR")[0]
    assert 50 < stats.decode.packets <= 100 * 84


async def test_the_loop_runs_while_a_script_works(tmp_path: Path) -> None:
    busy = "local last = os.clock() + 0.001 while os.clock() < last do end"
    path = write(tmp_path, made_by(f"step = function() n = (n or 0) + 1 {busy} return n < 300 end"))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with Engine([path]) as engine:
        counting = asyncio.ensure_future(count())
        await engine.run(Script(path))
        counting.cancel()
    assert turns > 50  # 300 calls of a millisecond, in slices of two


async def test_a_script_is_loaded_when_it_is_not(tmp_path: Path) -> None:
    path = write(tmp_path, made_by("step = function() T.loginfo('step') return false end"))
    collector = Collector()
    async with Engine(sinks=[collector]) as engine:
        await engine.run(Script(path))
        await engine.run(Script(path))
    assert collector.logged() == ["step", "step"]


async def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    plain, none = (
        write(tmp_path, plugin(""), "plain.lua"),
        write(tmp_path, made_by("onload = function() end"), "none.lua"),
    )
    async with Engine([plain]) as engine:
        for path in (plain, none):
            with pytest.raises(EngineError, match="has no inputfilter"):
                await engine.run(Script(path))


async def test_unloading_the_source_ends_it(tmp_path: Path) -> None:
    step = "packet:set_packet(5, 0, 1, ('x'):rep(60)) return true"
    path = write(tmp_path, made_by(f"step = function(packet) {step} end"))
    async with asyncio.timeout(60), Engine([path]) as engine:
        run = asyncio.ensure_future(engine.run(Script(path)))
        await eventually(lambda: engine.stats.decode.packets > 100)
        await engine.unload(path.name)
        await run
        assert engine.stats.decode.packets > 100


async def test_packets_of_other_hooks_can_not_be_set(tmp_path: Path) -> None:
    (tmp_path / "in.pcap").write_bytes(pcap(handshake(1, 2)))
    body = (
        'simplecounter = { protocol_guid = "{0A2C724B-5B9F-4BA6-9C97-B05080558574}", '
        "onpacket = function(e, layer) layer:packet():set_packet(1, 2, 1, 'x') end }"
    )
    collector = Collector()
    async with Engine([write(tmp_path, plugin(body))], sinks=[collector]) as engine:
        await engine.run(Capture(tmp_path / "in.pcap"))
    assert all("only a packet that an inputfilter makes" in line for line in collector.logged("ERROR"))
