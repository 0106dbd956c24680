"""Settings: every bad one is refused when it is made, by name."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from engine.values.config import MAX_WORKERS, CaptureLimits, Config
from engine.values.errors import ConfigError


def test_defaults_are_valid() -> None:
    assert Config.from_mapping({}) == Config()
    assert Config().limits == CaptureLimits()


def test_an_unknown_key_is_refused_and_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown setting 'worker', known are .*workers") as raised:
        Config.from_mapping({"workers": 2, "worker": 3})
    assert all(each.name in str(raised.value) for each in fields(Config))


def test_known_keys_are_taken() -> None:
    config = Config.from_mapping({"workers": 3, "args": "x", "ramfs": Path("somewhere"), "settings": {"a>b": "c"}})
    assert (config.workers, config.args, config.ramfs, config.settings) == (3, "x", Path("somewhere"), {"a>b": "c"})


@pytest.mark.parametrize("number", [1, MAX_WORKERS, None])
def test_workers_in_range(number: int | None) -> None:
    assert Config(workers=number).workers == number


@pytest.mark.parametrize("number", [0, -1, MAX_WORKERS + 1])
def test_workers_out_of_range(number: int) -> None:
    with pytest.raises(ConfigError, match=f"workers must be 1 to {MAX_WORKERS}, not {number}"):
        Config(workers=number)


@pytest.mark.parametrize(
    "name",
    ["ramfs_bytes", "chunk_bytes", "queue_limit", "event_limit", "message_limit", "subscription_limit"],
)
def test_sizes_are_at_least_one(name: str) -> None:
    assert getattr(Config(**{name: 1}), name) == 1
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, not 0"):
        Config(**{name: 0})


def test_a_negative_drain_is_refused() -> None:
    assert Config(drain_seconds=0).drain_seconds == 0
    with pytest.raises(ConfigError, match="drain_seconds must not be negative"):
        Config(drain_seconds=-0.1)


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Config().workers = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        CaptureLimits().flows = 2  # type: ignore[misc]


@pytest.mark.parametrize(("name", "value"), [("workers", "4"), ("queue_limit", "many"), ("drain_seconds", "30")])
def test_a_value_of_a_wrong_type_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Config.from_mapping({name: value})
