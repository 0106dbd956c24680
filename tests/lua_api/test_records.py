"""Resource and Alert: never nil but for the flow of an alert; mutators are seen by the host."""

from __future__ import annotations

from typing import Any

KEY = b"06A:C0.A8.01.02:p-0B94_D1.D8.F9.3A:p-0016"


def test_resource(lua: Any) -> None:
    source = """
    local resource = require("offpath.resource").new { time = 1490079998.25, flow = (...), uri = "u", contents = "c" }
    local sec, usec = resource:timestamp()
    return sec, usec, resource:flow():id(), resource:uri(), resource:label(), resource:source_ip(),
      resource:source_port(), resource:destination_ip(), resource:destination_port()
    """
    ends = (b"192.168.1.2", b"2964", b"209.216.249.58", b"22")
    assert lua.run(source, KEY) == (1490079998, 250000, KEY, b"u", b"c", *ends)


def test_an_empty_resource_is_never_nil(lua: Any) -> None:
    source = """
    local resource = require("offpath.resource").new()
    local sec, usec = resource:timestamp()
    return sec, usec, resource:flow():flow_type(), resource:uri() .. resource:label() .. resource:source_ip() ..
      resource:source_port() .. resource:destination_ip() .. resource:destination_port()
    """
    assert lua.run(source) == (0, 0, b"A", b"")


def test_resource_mutators(lua: Any) -> None:
    source = """
    local fields = { uri = "u" }
    local resource = require("offpath.resource").new(fields)
    resource:set_uri("v")
    resource:set_label(7)
    return resource:uri(), resource:label(), fields.uri, resource.fields.contents
    """
    assert lua.run(source) == (b"v", b"7", b"v", b"7")


def test_alert(lua: Any) -> None:
    source = """
    local alert = require("offpath.alert").new {
      sec = 5, usec = 6, flow = require("offpath.flowid").from_key((...)), sigid = "s", classification = "c",
      priority = "2", message = "m", extra_message = "x", status = "ALARM", ack_flag = true, source_ip = "1.2.3.4",
    }
    local sec, usec = alert:timestamp()
    return sec, usec, alert:flow():key(), alert:sigid(), alert:classification(), alert:priority(), alert:message(),
      alert:extra_message(), alert:status(), alert:ack_flag(), alert:source_ip(), alert:source_port()
    """
    assert lua.run(source, KEY) == (5, 6, KEY, b"s", b"c", 2, b"m", b"x", b"ALARM", 1, b"1.2.3.4", b"2964")


def test_an_empty_alert_has_no_flow_and_no_other_nil(lua: Any) -> None:
    source = """
    local alert = require("offpath.alert").new { flow = "" }
    local texts = alert:sigid() .. alert:classification() .. alert:message() .. alert:extra_message() .. alert:status()
    return alert:flow(), texts, alert:priority(), alert:ack_flag(), alert:destination_port()
    """
    assert lua.run(source) == (None, b"", 0, 0, b"")


def test_alert_mutators(lua: Any) -> None:
    source = """
    local alert = require("offpath.alert").new { priority = 1, message = "m", extra_message = "x" }
    alert:set_priority("3")
    alert:set_message("n")
    alert:set_extra_message("")
    return alert.fields.priority, alert:priority(), alert:message(), alert.fields.extra_message
    """
    assert lua.run(source) == (3, 3, b"n", b"")


def test_a_timestamp_is_two_results_and_never_rounds_past_a_second(lua: Any) -> None:
    source = "return require('offpath.alert').new({ time = 9.9999999 }):timestamp()"
    assert lua.run(source) == (10, 0)
