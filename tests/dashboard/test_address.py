"""Where a dashboard listens."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dashboard.address import Address, ServeError, bind, is_loopback, require_packages, url_of


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8000", "127.0.0.1", 8000),
        ("8000", "127.0.0.1", 8000),
        (":0", "127.0.0.1", 0),
        ("0", "127.0.0.1", 0),
        ("localhost:65535", "localhost", 65535),
        ("[::1]:80", "::1", 80),
        ("0.0.0.0:1", "0.0.0.0", 1),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)


@pytest.mark.parametrize(
    "text", ["", "localhost", "localhost:", "::1:80", "a:b:1", "x:-1", "x:65536", "[::1", "http://x:1"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ServeError, match=r"no address|no port"):
        Address.parse(text)


@given(st.sampled_from(["127.0.0.1", "::1", "example.org"]), st.integers(0, 65535))
def test_an_address_is_written_as_it_is_read(host: str, port: int) -> None:
    assert Address.parse(str(Address(host, port))) == Address(host, port)


def test_a_port_in_use_is_named() -> None:
    with bind(Address(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"127.0.0.1:{port}: Address already in use"):
            bind(Address(port=port))
    bind(Address(port=port)).close()  # and free again


def test_a_host_that_is_not_there() -> None:
    with pytest.raises(ServeError, match=r"host.invalid:1: no such host"):
        bind(Address("host.invalid", 1))


def test_an_address_of_another_machine() -> None:
    with pytest.raises(ServeError, match=r"192\.0\.2\.1:0: Cannot assign requested address"):
        bind(Address("192.0.2.1"))


@pytest.mark.parametrize(("host", "loopback"), [("127.0.0.1", True), ("127.9.8.7", True), ("0.0.0.0", False)])
def test_loopback_is_what_is_bound(host: str, loopback: bool) -> None:
    with bind(Address(host)) as listening:
        assert is_loopback(listening) is loopback
        name = socket.gethostname() if host == "0.0.0.0" else host
        assert url_of(listening) == f"http://{name}:{listening.getsockname()[1]}/"


def test_what_is_missing_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.dashboard.address.find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(ServeError, match=r"needs the package uvicorn: pip install 'offpath\[serve\]'"):
        require_packages()
