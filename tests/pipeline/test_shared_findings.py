"""Real captures with known contents, if they are there: DNS messages, and server names of TLS."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from engine.values.groups import DNS_RESOURCES
from engine.values.records import Dns
from tests.scripts import Collector, assert_counts_close, on_resource, run_capture, write

DATA = Path(__file__).parents[2].parent / "shared" / "data"
CAPTURES = sorted(path.stem for path in (DATA / "expected").glob("*.json"))

pytestmark = pytest.mark.skipif(not CAPTURES, reason=f"the captures with known contents are not there: {DATA}")


@pytest.fixture(scope="module", params=CAPTURES or ["none"])
def reading(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Collector]:
    """What is known of a capture, and what came out of it with a script that monitors DNS."""
    known = json.loads((DATA / "expected" / f"{request.param}.json").read_text(encoding="utf-8"))
    script = write(tmp_path_factory.mktemp("s"), on_resource("T.loginfo(resource:uri())", guid=f'"{DNS_RESOURCES}"'))
    collector, stats = asyncio.run(run_capture(DATA / "pcap" / known["capture"], [script]))
    assert_counts_close(stats)
    assert collector.logged("ERROR") == []
    assert (stats.dns.malformed, stats.tls.malformed) == (0, 0)
    return known, collector


Reading = tuple[dict[str, Any], Collector]


def listed(entries: list[dict[str, Any]], *names: str) -> Counter[tuple[str, ...]]:
    return Counter({tuple(entry[name] for name in names): entry.get("n", 1) for entry in entries})


def questions(messages: list[Dns], *, answered: bool) -> Counter[tuple[str, str]]:
    return Counter(
        (question.name.lower(), question.type)
        for message in messages
        if message.is_response == answered
        for question in message.questions
    )


def test_dns_questions(reading: Reading) -> None:
    known, collector = reading
    assert questions(collector.of("dns"), answered=False) == listed(known.get("dns", []), "name", "type")


def test_dns_questions_that_were_answered(reading: Reading) -> None:
    known, collector = reading
    found = questions(collector.of("dns"), answered=True)
    assert found == listed(known.get("dns_answered", []), "name", "type")


def test_dns_resources_are_what_was_answered(reading: Reading) -> None:
    known, collector = reading
    answered: Counter[str] = Counter()
    for entry in known.get("dns_answered", []):
        answered[entry["name"]] += entry.get("n", 1)
    assert Counter(collector.logged()) == answered
    assert Counter(each.uri for each in collector.of("resource")) == answered


def test_server_names(reading: Reading) -> None:
    known, collector = reading
    for transport, key in (("tcp", "sni"), ("quic", "sni_quic")):
        found = [each for each in collector.of("tls") if each.transport == transport and each.sni]
        assert Counter((each.sni,) for each in found) == listed(known.get(key, []), "name")
