"""Hellos and their fingerprints, against values that others published."""

from __future__ import annotations

import pytest

from engine.capture.applications.tls_hello import (
    HELLO_BYTES,
    MOST_EXTENSIONS,
    MOST_PROTOCOLS,
    Chain,
    ClientHello,
    ServerHello,
    read_chain,
    read_client_hello,
    read_server_hello,
)
from engine.capture.applications.tls_prints import is_grease, ja3, ja3s, ja4, md5
from tests.capture.tls_talk import (
    RETRY_RANDOM,
    alpn,
    chain_body,
    client_body,
    extension,
    numbers,
    server_body,
    sni,
    vector,
)


def test_everything_a_client_offers() -> None:
    hello = read_client_hello(
        client_body(
            extension(0x2A2A),
            sni(b"WWW.Example.COM."),
            extension(10, vector(numbers(0x1A1A, 29, 23), 2)),
            extension(11, b"\2\0\1"),
            extension(13, vector(numbers(0x0403, 0x0804), 2)),
            alpn(b"h2", b"http/1.1"),
            extension(43, vector(numbers(0x0A0A, 0x0304, 0x0303), 1)),
            ciphers=(0x3A3A, 0x1301),
        )
    )
    assert hello == ClientHello(
        version=0x0303,
        ciphers=(0x3A3A, 0x1301),
        extensions=(0x2A2A, 0, 10, 11, 13, 16, 43),
        server_name="www.example.com",
        alpn=(b"h2", b"http/1.1"),
        groups=(0x1A1A, 29, 23),
        point_formats=(0, 1),
        signature_algorithms=(0x0403, 0x0804),
        versions=(0x0A0A, 0x0304, 0x0303),
    )


def test_a_hello_without_extensions() -> None:
    assert read_client_hello(client_body()) == ClientHello(0x0303, (0x1301, 0xC02F), ())
    assert read_server_hello(server_body()) == ServerHello(0x0303, 0xC02F, (), 0x0303, False)


def test_what_a_server_chose() -> None:
    body = server_body(extension(43, numbers(0x0304)), extension(51, b"xy"), cipher=0x1302)
    assert read_server_hello(body) == ServerHello(0x0303, 0x1302, (43, 51), 0x0304, False)
    retry = read_server_hello(server_body(extension(43, numbers(0x0304)), random=RETRY_RANDOM))
    assert retry is not None
    assert retry.is_retry


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\0b"])
def test_odd_server_names_become_text(name: bytes) -> None:
    hello = read_client_hello(client_body(sni(name)))
    assert hello is not None
    assert hello.server_name == {b"\xff\xfe": "\\xff\\xfe", b"a\0b": "a\0b"}[name]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        client_body()[:40],
        client_body(sni(b"x"))[:-1],
        client_body(extension(0, b"\0\5\0\0")),
        client_body(extension(10, b"\0\3\0\1\2")),
        client_body(extension(16, b"\0\2\5a")),
        client_body(*(extension(each) for each in range(1000, 1000 + MOST_EXTENSIONS + 1))),
        client_body(alpn(*[b"x"] * (MOST_PROTOCOLS + 1))),
        client_body(sni(b"x"), extension(21, bytes(HELLO_BYTES))),
    ],
)
def test_a_malformed_client_hello_is_none(body: bytes) -> None:
    assert read_client_hello(body) is None


def test_no_prefix_of_a_hello_is_taken_for_another() -> None:
    client, server = client_body(sni(b"a.example"), alpn(b"h2")), server_body(extension(43, numbers(0x0304)))
    bare_client, bare_server = len(client_body()), len(server_body())
    for size in range(len(client)):
        assert (read_client_hello(client[:size]) is None) == (size != bare_client)
    for size in range(len(server)):
        assert (read_server_hello(server[:size]) is None) == (size != bare_server)


def test_chains() -> None:
    assert read_chain(chain_body(b"a", b"bc"), 16) == Chain((b"a", b"bc"), whole=True)
    assert read_chain(chain_body(b"a", b"bc"), 1) == Chain((b"a",), whole=False)
    assert read_chain(chain_body(), 1) == Chain((), whole=True)
    assert read_chain(chain_body(b"abc")[:-1], 1) is None


def test_grease() -> None:
    assert [each for each in range(0x10000) if is_grease(each)] == [0x0A0A + 0x1010 * each for each in range(16)]


# The examples in the README of salesforce/ja3.
@pytest.mark.parametrize(
    ("hello", "text", "short"),
    [
        (
            ClientHello(
                769,
                (47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4),
                (0, 10, 11),
                groups=(23, 24, 25),
                point_formats=(0,),
            ),
            "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0",
            "ada70206e40642a3e4461f35503241d5",
        ),
        (
            ClientHello(769, (4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99), ()),
            "769,4-5-10-9-100-98-3-6-19-18-99,,,",
            "de350869b8c85de67a350c8d186f11e6",
        ),
    ],
)
def test_ja3(hello: ClientHello, text: str, short: str) -> None:
    assert ja3(hello) == text
    assert md5(text) == short


def test_ja3_leaves_grease_out() -> None:
    hello = ClientHello(771, (0x0A0A, 1), (0x1A1A, 10), groups=(0xFAFA, 29))
    assert ja3(hello) == "771,1,10,29,"


def test_ja3s() -> None:
    assert ja3s(ServerHello(769, 47, (65281, 0, 11, 35, 5, 16), 769, False)) == "769,47,65281-0-11-35-5-16"
    assert ja3s(ServerHello(771, 5, (), 771, False)) == "771,5,"


# The example of the JA4 specification (FoxIO-LLC/ja4, technical_details/JA4.md).
JA4_EXAMPLE = ClientHello(
    version=0x0303,
    ciphers=(
        *(0x5A5A, 0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC02C, 0xC030),
        *(0xCCA9, 0xCCA8, 0xC013, 0xC014, 0x009C, 0x009D, 0x002F, 0x0035),
    ),
    extensions=(
        *(0x2A2A, 0x001B, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002D, 0x000D),
        *(0x0005, 0x0023, 0x0012, 0x002B, 0xFF01, 0x000B, 0x000A, 0x0015, 0x1A1A),
    ),
    server_name="a.example",
    alpn=(b"h2", b"http/1.1"),
    signature_algorithms=(0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601),
    versions=(0x8A8A, 0x0304, 0x0303),
)


def test_ja4() -> None:
    assert ja4(JA4_EXAMPLE) == "t13d1516h2_8daaf6152771_e5627efa2ab1"
    assert ja4(JA4_EXAMPLE, protocol="q").startswith("q13d1516h2_")


def test_ja4_of_a_hello_with_nothing() -> None:
    assert ja4(ClientHello(0x0301, (), ())) == "t10i000000_000000000000_000000000000"


def test_ja4_hashes_extensions_without_a_line_when_there_are_no_algorithms() -> None:
    # Given in the specification for the list of the example without signature algorithms.
    bare = ClientHello(0x0303, (), JA4_EXAMPLE.extensions)
    assert ja4(bare) == "t12d001600_000000000000_6d807ffa2a79"


def test_ja4_counts_stop_at_99() -> None:
    many = ClientHello(0x0300, tuple(range(120)), tuple(range(100, 250)))
    assert ja4(many).startswith("ts3i9999")
    assert ja4(ClientHello(0x7F1C, (), ())).startswith("t00")


@pytest.mark.parametrize(
    ("protocol", "text"),
    [
        (b"h2", "h2"),
        (b"http/1.1", "h1"),
        (b"h", "hh"),
        (b"", "00"),
        (b"\xab", "ab"),
        (b"\xab\xcd", "ad"),
        (b"\x30\xab", "3b"),
        (b"\x30\x31\xab\xcd", "3d"),
        (b"\x30\xab\xcd\x31", "01"),
    ],
)
def test_ja4_protocols(protocol: bytes, text: str) -> None:
    assert ja4(ClientHello(0x0303, (), (), alpn=(protocol,)))[8:10] == text
