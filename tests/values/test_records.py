"""Records: frozen, told apart by kind, and plain data when they leave."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields
from typing import Any, get_args

import pytest

from engine.values.records import RECORD_TYPES, Alert, DnsAnswer, DnsQuestion, Record, Summary, as_mapping

_SAMPLES = {
    "str": "text",
    "int": 7,
    "float": 1.5,
    "float | None": 2.5,
    "bool": True,
    "dict[str, int]": {"files": 3, "alerts": 2},
    "Mapping[str, str]": {"user": "x"},
    "Mapping[str, float]": {"4": 1.5},
    "Mapping[str, str | int]": {"source_ip": "1.2.3.4", "sig_rev": 3},
    "tuple[str, ...]": ("a", "b"),
    "tuple[DnsQuestion, ...]": (DnsQuestion("a.example", "A"),),
    "tuple[DnsAnswer, ...]": (DnsAnswer("a.example", "A", "192.0.2.1", 60),),
}


def make(kind: str) -> Any:
    """A record of a kind, with some value of the right type in each field."""
    record_type = RECORD_TYPES[kind]
    return record_type(**{each.name: _SAMPLES[str(each.type)] for each in fields(record_type)})


def test_every_record_type_is_listed_under_its_kind() -> None:
    assert set(RECORD_TYPES.values()) == set(get_args(Record))
    assert all(kind == record_type.kind for kind, record_type in RECORD_TYPES.items())
    assert len(RECORD_TYPES) == 15


@pytest.mark.parametrize("kind", sorted(RECORD_TYPES))
def test_a_record_is_frozen_and_takes_no_new_field(kind: str) -> None:
    record = make(kind)
    for each in fields(record):
        with pytest.raises(FrozenInstanceError):
            setattr(record, each.name, None)
    with pytest.raises((AttributeError, TypeError)):
        record.extra = 1


@pytest.mark.parametrize("kind", sorted(RECORD_TYPES))
def test_kind_is_first_and_the_fields_follow_in_their_order(kind: str) -> None:
    record = make(kind)
    mapping = as_mapping(record)
    assert next(iter(mapping.items())) == ("kind", kind)
    expected = [each.name for each in fields(record) if each.name != "counts"]
    assert list(mapping)[1 : len(expected) + 1] == expected
    assert json.loads(json.dumps(mapping)) == mapping


def test_the_counts_of_a_summary_lie_flat() -> None:
    summary = Summary(packets=5, seconds=0.5, counts={"files": 3, "alerts": 2})
    assert as_mapping(summary) == {"kind": "summary", "packets": 5, "seconds": 0.5, "files": 3, "alerts": 2}


def test_equal_values_make_equal_records() -> None:
    assert make("alert") == make("alert")
    assert isinstance(make("alert"), Alert)
    assert as_mapping(make("log")) != as_mapping(make("edge"))
