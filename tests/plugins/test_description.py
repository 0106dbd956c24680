"""What a script says of itself: defaults, refusals that name the field, warnings that name the cure."""

from __future__ import annotations

import pytest

from engine.plugins.blocks import NO_BLOCK
from engine.plugins.description import Description, Identity, describe
from engine.plugins.script import ScriptFile, ScriptState
from engine.values.config import MAX_WORKERS
from engine.values.errors import ScriptLoadError

SETTINGS = {"side": "backend", "homenets": [], "config": {}, "queue_limit": 10}


def told(body: str | bytes) -> Description:
    """The description of a script whose table TrisulPlugin has this body."""
    body = body if isinstance(body, bytes) else body.encode()
    script = ScriptFile("/nowhere/told.lua", "told.lua", b"TrisulPlugin = {" + body + b"}")
    state = ScriptState(script, SETTINGS, lambda _level, _line: None)
    try:
        return describe(script.name, state.describe())
    finally:
        state.close()


def warnings(body: str) -> tuple[str, ...]:
    return told(f'id = {{ name = "n" }}, {body}').warnings


def test_the_id_has_defaults() -> None:
    assert told('id = { name = "n" }').identity == Identity("n", "", "Unleash", 1, 0)


def test_a_full_id_is_taken() -> None:
    body = 'id = { name = "n", description = "d", author = "a", version_major = 3, version_minor = 7 }'
    assert told(body).identity == Identity("n", "d", "a", 3, 7)


@pytest.mark.parametrize("body", ["", "id = {}", 'id = "text"', "id = { version_major = 'x' }"])
def test_without_a_name_the_file_lends_its_own(body: str) -> None:
    assert told(body).identity == Identity("told.lua")


def test_a_missing_id_is_a_warning() -> None:
    assert told("").warnings == ("TrisulPlugin.id is missing: give id = { name = ... }",)
    assert warnings("") == ()


def test_a_script_without_a_block_has_none() -> None:
    assert told("onload = function() end").blocks == (NO_BLOCK,)


def test_blocks_come_in_the_order_of_the_table_with_the_hooks_they_define() -> None:
    description = told(
        "event_monitor = { onevent = function() end },"
        "alert_monitor = { onnewalert = function() end, helper = function() end },"
        "filex_monitor = { filter = function() end, onfile_http = 5 }"
    )
    assert [block.name for block in description.blocks] == ["filex_monitor", "alert_monitor", "event_monitor"]
    assert description.hooks == {
        "filex_monitor": {"filter"},
        "alert_monitor": {"onnewalert"},
        "event_monitor": {"onevent"},
    }


@pytest.mark.parametrize("number", [1, 2, MAX_WORKERS])
def test_workers_in_range_are_taken(number: int) -> None:
    assert told(f"request_async_workers = {number}").workers == number


def test_no_number_of_workers_is_none() -> None:
    assert told("").workers is None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0", "0"),
        ("-1", "-1"),
        (str(MAX_WORKERS + 1), str(MAX_WORKERS + 1)),
        ("2.5", "2.5"),
        ("'2'", "'2'"),
        ("true", "True"),
        ("function() end", "a function"),
    ],
)
def test_workers_out_of_range_are_refused_by_name(value: str, shown: str) -> None:
    with pytest.raises(ScriptLoadError, match=f"request_async_workers must be .* 1 to {MAX_WORKERS}") as raised:
        told(f"request_async_workers = {value}")
    assert raised.value.message.endswith(f"not {shown}")
    assert raised.value.script == "told.lua"


@pytest.mark.parametrize("field", ["async_max_tasks", "async_memory_mb", "async_queue_limit"])
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0", "0"),
        ("-1", "-1"),
        ("2.5", "2.5"),
        ("'2'", "'2'"),
        ("true", "True"),
        ("{}", "a table"),
        ("math.huge", "a number"),
        ("function() end", "a function"),
    ],
)
def test_limits_of_async_work_that_are_no_number_from_one_are_refused_by_name(
    field: str, value: str, shown: str
) -> None:
    with pytest.raises(ScriptLoadError) as raised:
        told(f"{field} = {value}")
    assert raised.value.message == f"{field} must be a whole number from 1, not {shown}"
    assert raised.value.script == "told.lua"


def test_limits_of_async_work_are_taken_and_may_be_absent() -> None:
    body = "async_max_tasks = 1, async_memory_mb = 2, async_queue_limit = 3"
    options = told(body).worker_options
    assert (options.max_tasks, options.memory_mb, options.queue_limit) == (1, 2, 3)
    options = told("").worker_options
    assert (options.max_tasks, options.memory_mb, options.queue_limit) == (None, None, None)


def test_subscriptions_absent_empty_and_present() -> None:
    assert told("").subscriptions is None
    assert told("message_subscriptions = {}").subscriptions == frozenset()
    assert told('message_subscriptions = { "{A}", "{B}" }').subscriptions == {"{A}", "{B}"}


@pytest.mark.parametrize("value", ["5", "{ 1, 2 }", "function() end", "{ {} }"])
def test_subscriptions_of_another_shape_are_refused_by_name(value: str) -> None:
    with pytest.raises(ScriptLoadError, match="message_subscriptions must be an array of strings"):
        told(f"message_subscriptions = {value}")


@pytest.mark.parametrize(
    ("value", "topics"), [('"a.*"', ("a.*",)), ('{ "a", "b.**" }', ("a", "b.**")), ("{}", ()), ("nil", ())]
)
def test_topics_are_a_string_or_an_array(value: str, topics: tuple[str, ...]) -> None:
    assert told(f"event_monitor = {{ topics = {value}, onevent = function() end }}").topics == topics


def test_topics_of_another_shape_are_refused_by_name() -> None:
    with pytest.raises(ScriptLoadError, match=r"event_monitor\.topics must be an array of strings"):
        told("event_monitor = { topics = 5, onevent = function() end }")


def test_only_a_function_receives_messages() -> None:
    assert told("onmessage = function() end").receives_messages
    assert not told("onmessage = 1").receives_messages
    assert not told("").receives_messages


@pytest.mark.parametrize(
    ("body", "name", "meant"),
    [
        ("filexmonitor = {}", "TrisulPlugin.filexmonitor", "filex_monitor"),
        ("alertmonitor = {}", "TrisulPlugin.alertmonitor", "alert_monitor"),
        ("on_load = function() end", "TrisulPlugin.on_load", "onload"),
        ("request_async_worker = 2", "TrisulPlugin.request_async_worker", "request_async_workers"),
        ("async_queue_limits = 2", "TrisulPlugin.async_queue_limits", "async_queue_limit"),
        ("filex_monitor = { onfilehttp = function() end }", "filex_monitor.onfilehttp", "onfile_http"),
        ("event_monitor = { onEvent = function() end }", "event_monitor.onEvent", "onevent"),
        ("alert_monitor = { onnewalerts = function() end }", "alert_monitor.onnewalerts", "onnewalert"),
    ],
)
def test_a_near_miss_gets_a_hint(body: str, name: str, meant: str) -> None:
    (warning,) = warnings(body)
    assert warning.startswith(name)
    assert f"did you mean {meant!r}?" in warning


@pytest.mark.parametrize(
    "body",
    [
        "reload = function() end, mac_table = { a = 1 }",
        "ifts_monitors_of_mine = {}",
        "event_monitor = { onevent = function() end, schedule_polls = function() end, known = {} }",
    ],
)
def test_private_names_are_left_alone(body: str) -> None:
    assert warnings(body) == ()


@pytest.mark.parametrize(
    "body",
    [
        b'id = { name = "n" }, limit = math.huge',
        b'id = { name = "n" }, limit = 0/0',
        b'id = { name = "n" }, event_monitor = { onevent = function() end, limit = -math.huge }',
        b'id = { name = "n" }, magic = "\\255\\254"',
        b'id = { name = "n", author = "Jos\xe9" }',
        b'id = { name = "n" }, magics = { "\\0\\255" }',
        b'id = { name = "n" }, ["\\255"] = {}',
    ],
    ids=["infinite", "nan", "in-block", "binary", "latin-1", "binary-list", "binary-key"],
)
def test_private_data_of_any_value_is_no_obstacle(body: bytes) -> None:
    assert told(body).identity.name == "n"


def test_a_number_of_workers_without_end_is_refused_by_name() -> None:
    with pytest.raises(ScriptLoadError, match="request_async_workers"):
        told("request_async_workers = math.huge")
