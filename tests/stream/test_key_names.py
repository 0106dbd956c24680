"""What keys of the built-in groups stand for."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.stream.builtin_groups import AGGREGATES, APPS, HOSTS, INTERNAL_HOSTS, LINK_LAYER, NETWORK_LAYER
from engine.stream.key_names import name_of, names_keys

HOSTS_IPV6 = "{6CD742B1-C1CA-4708-BE78-0FCA2EB01A86}"


@pytest.mark.parametrize(
    ("group", "key", "name"),
    [
        (HOSTS, "C0.A8.01.0A", "192.168.1.10"),
        (INTERNAL_HOSTS, "0A.00.00.FF", "10.0.0.255"),
        (HOSTS_IPV6, "20010DB8000000000000000000000001", "2001:db8::1"),
        (APPS, "p-0050", "http"),
        (APPS, "p-0AB5", "2741"),
        (NETWORK_LAYER, "06", "TCP"),
        (NETWORK_LAYER, "FD", ""),
        (LINK_LAYER, "0800", "IPv4"),
        (AGGREGATES, "TOTALBW", ""),
    ],
)
def test_names(group: str, key: str, name: str) -> None:
    assert name_of(group, key) == name


@given(st.sampled_from([HOSTS, HOSTS_IPV6, APPS, NETWORK_LAYER, LINK_LAYER]), st.text(max_size=12))
def test_keys_that_scripts_made_up_have_none_or_one_that_can_be_shown(group: str, key: str) -> None:
    assert name_of(group, key).isprintable()


@given(st.ip_addresses())
def test_hosts_are_written_as_addresses(address: IPv4Address | IPv6Address) -> None:
    digits = address.packed.hex().upper()
    key = digits if address.version == 6 else ".".join(digits[at : at + 2] for at in range(0, 8, 2))
    assert name_of(HOSTS, key) == str(address)


def test_groups_whose_keys_have_names() -> None:
    assert names_keys(HOSTS)
    assert not names_keys(AGGREGATES)
