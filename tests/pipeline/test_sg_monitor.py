"""Monitors of sessions, and flow trackers: calls over a capture, states, tags, the top flows (spec 2.5, 2.9, 3.3)."""

from __future__ import annotations

from pathlib import Path

from engine.capture.synth import synthesize
from tests.capture.packets import pcap, udp
from tests.pipeline.flush_rig import telling
from tests.scripts import run_capture, write

HOOKS = {
    "onnewflow": "", "onupdate": "", "onterminate": "", "onbeginflush": "", "flushfilter": "return true", "onflush": "",
    "onendflush": "",
}  # fmt: skip


def datagrams(tmp_path: Path, *times: float, port: int = 5000) -> Path:
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap([(time, udp(("10.0.0.1", port), ("10.0.0.2", 53), b"x")) for time in times]))
    return path


async def test_the_hooks_of_a_flow_come_in_order(tmp_path: Path) -> None:
    script = write(tmp_path, telling("sg_monitor", HOOKS))
    collector, stats = await run_capture(datagrams(tmp_path, 1000.0, 1001.0), [script])
    (flow,) = collector.of("flow")
    told = [line.split() for line in collector.logged()]
    assert [name for name, _ in told] == [
        "onnewflow", "onupdate", "onterminate", "onbeginflush", "flushfilter", "onflush", "onendflush",
    ]  # fmt: skip
    assert {about for _, about in told} == {flow.id, "1020"}
    assert (stats.flush.kept, stats.script_errors) == (1, 0)


async def test_what_a_flow_says_of_itself(tmp_path: Path) -> None:
    body = (
        "local _, f = ... T.loginfo(table.concat({ f:key(), f:flow():id(), f:az_bytes(), f:za_bytes(), f:az_packets(), "
        "f:za_packets(), f:az_payload_bytes(), f:za_payload_bytes(), f:setup_rtt(), f:retransmissions(), f:state(), "
        "#f:tags(), f:time_window() }, ' ')) local a, b = f:time_window() T.loginfo(a .. ' ' .. b)"
    )
    script = write(tmp_path, telling("sg_monitor", {"onflush": body}))
    collector, _ = await run_capture(datagrams(tmp_path, 1000.25, 1007.5), [script])
    key = "11A:0A.00.00.01:p-1388_0A.00.00.02:p-0035"
    (flow,) = collector.of("flow")
    assert collector.logged()[1:] == [
        f"{key} {key} {flow.a_bytes} 0 2 0 0 0 0 0 {0x0101} 0 1000 1007", "1000 1007"
    ]  # fmt: skip


async def test_tcp_flows_have_their_flags_in_their_state(tmp_path: Path) -> None:
    made = synthesize(tmp_path / "x.pcap", files=2, seed=1)
    script = write(tmp_path, telling("sg_monitor", {"onflush": "T.loginfo('state ' .. select(2, ...):state())"}))
    collector, _ = await run_capture(made.path, [script])
    states = {int(line.split()[1]) for line in collector.logged() if line.startswith("state")}
    assert states == {0x0001 | 0x0002 | 0x0004 | 0x0008 | 0x0020 | 0x0040 | 0x0800}


async def test_tags_of_a_flush_are_in_the_record_and_rejected_flows_are_none(tmp_path: Path) -> None:
    body = "local _, f = ... f:add_tag('one') f:add_tag('two') f:add_tag('one') f:add_tag(('x'):rep(64))"
    scripts = [
        write(tmp_path, telling("sg_monitor", {"onflush": body}), "tag.lua"),
        write(tmp_path, telling("sg_monitor", {"onflush": "T.loginfo('tags ' .. select(2, ...):tags())"}), "see.lua"),
    ]
    collector, _ = await run_capture(datagrams(tmp_path, 1000.0), scripts)
    assert [flow.tags for flow in collector.of("flow")] == ["one|two"]
    assert "tags one|two" in collector.logged()
    reject = write(tmp_path, telling("sg_monitor", {"flushfilter": "return false"}), "reject.lua")
    collector, stats = await run_capture(tmp_path / "x.pcap", [reject])
    assert collector.of("flow") == []
    assert stats.flush.rejected == 1


async def test_long_flows_are_flushed_every_300_seconds_and_recorded_once(tmp_path: Path) -> None:
    script = write(tmp_path, telling("sg_monitor", {"onflush": "T.loginfo('state ' .. select(2, ...):state())"}))
    collector, _ = await run_capture(datagrams(tmp_path, *(1020.0 + 10 * n for n in range(80))), [script])
    assert [line for line in collector.logged() if line.startswith("state")] == ["state 1", "state 1", f"state {0x101}"]
    assert len(collector.of("flow")) == 1


async def test_a_flow_tracker_keeps_the_top_flows(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap([(1000.0, udp(("10.0.0.1", 5000 + n), ("10.0.0.2", 53), b"x" * 10 * n)) for n in range(20)]))
    body = "local _, f = ... local b = f:az_bytes() if b % 3 == 0 then return nil end return b"
    control = 'control = { name = "Big", bucketsize = 300, count = 4 },'
    script = write(tmp_path, telling("flowtracker", {"getmetric": body}, fields=control))
    collector, stats = await run_capture(path, [script])
    sizes = sorted((flow.a_bytes for flow in collector.of("flow") if flow.a_bytes % 3), reverse=True)
    tracked = collector.of("tracked_flow")
    assert [(each.tracker, each.metric, each.rank) for each in tracked] == [
        ("Big", size, rank) for rank, size in enumerate(sizes[:4], 1)
    ]
    assert len({each.flow for each in tracked}) == 4
    assert stats.script_errors == 0


async def test_a_metric_that_is_no_number_is_not_tracked(tmp_path: Path) -> None:
    results = ("-1", "0", "nil", "'text'", "0 / 0", "math.huge", "error('no')")
    for result in results:
        end = "" if result.startswith("error") else "return "
        script = write(tmp_path, telling("flowtracker", {"getmetric": end + result}, fields="control = {},"))
        collector, _ = await run_capture(datagrams(tmp_path, 1000.0), [script])
        assert collector.of("tracked_flow") == []
        assert len(collector.of("flow")) == 1
