"""Flow keys as text: their parts, or None for what scripts make up."""

from __future__ import annotations

import pytest

from engine.values.flowkeys import Endpoints, endpoints


def test_the_parts_of_an_ipv4_key() -> None:
    parts = endpoints("06A:C0.A8.01.02:p-0B94_D1.D8.F9.3A:p-0016")
    assert parts == Endpoints("06", "C0.A8.01.02", "p-0B94", "D1.D8.F9.3A", "p-0016")


def test_the_parts_of_an_ipv6_key() -> None:
    a, z = "20010DB8000100000000000000000005", "20010DB8008000000000000000000013"
    assert endpoints(f"11B:{a}:p-0035_{z}:p-1F90") == Endpoints("11", a, "p-0035", z, "p-1F90")


@pytest.mark.parametrize("letter", "ABCD")
def test_every_key_family_is_read(letter: str) -> None:
    parts = endpoints(f"01{letter}:00.00.00.00:p-0000_00.00.00.00:p-0000")
    assert parts is not None
    assert parts.protocol == "01"


def test_what_netflow_keys_add_is_left_out() -> None:
    parts = endpoints("06C:0A.00.00.01:p-0050_0A.00.00.02:p-C000_extra_0001")
    assert parts is not None
    assert parts.z_port == "p-C000"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "nonsense",
        "06A:00.00.00.00_p-0000:00.00.00.00_p-00000",
        "06E:C0.A8.01.02:p-0B94_D1.D8.F9.3A:p-0016",
        "06A:C0.A8.01.02:p-0B94",
        "06A:c0.a8.01.02:p-0B94_D1.D8.F9.3A:p-0016",
        "06A:C0.A8.01.02:p-0B94_D1.D8.F9.3A:p-00160",
        " 06A:C0.A8.01.02:p-0B94_D1.D8.F9.3A:p-0016",
        "06A:C0.A8.01.02:p-0B94_D1.D8.F9.3A:p-0016\n",
    ],
)
def test_a_malformed_key_has_no_parts(key: str) -> None:
    assert endpoints(key) is None
