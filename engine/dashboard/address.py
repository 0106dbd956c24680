"""Where a dashboard listens: an address from text, a socket that is bound to it, and who may use it without a token."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

from engine.values.errors import EngineError

LOOPBACK: Final = "127.0.0.1"
_BACKLOG: Final = 128
_SEND_BYTES: Final = 1 << 17  # that the kernel holds for a connection that takes nothing
_SHAPE = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>\d+))?")


class ServeError(EngineError):
    """Raised when a dashboard can't be served: a bad address, one that is in use, or a package that is missing."""


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port; port 0 stands for any that is free."""

    host: str = LOOPBACK
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """``HOST:PORT``, ``[::1]:PORT``, ``:PORT`` or ``PORT``; without a host it is 127.0.0.1. Raises `ServeError`."""
        found = _SHAPE.fullmatch(f":{text}" if text.isdigit() else text)
        if found is None or found["port"] is None:
            raise ServeError(f"{text!r} is no address: write it as HOST:PORT, such as {LOOPBACK}:8000 or :0")
        port = int(found["port"])
        if port > 65_535:
            raise ServeError(f"{text!r}: there is no port {port}, the last one is 65535")
        return cls(found["six"] or found["host"] or LOOPBACK, port)

    def __str__(self) -> str:
        return f"{_in_url(self.host)}:{self.port}"


def require_packages() -> None:
    """Raises `ServeError` with the cure when what serves is not installed."""
    missing = [each for each in ("starlette", "uvicorn") if find_spec(each) is None]
    if missing:
        raise ServeError(f"serving needs the package {' and '.join(missing)}: pip install 'offpath[serve]'")


def bind(address: Address) -> socket.socket:
    """A socket that listens there. Raises `ServeError` when the address is not ours, or is in use."""
    try:
        family, kind, proto, _, place = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as exc:
        raise ServeError(f"{address}: no such host: {getattr(exc, 'strerror', None) or exc}") from exc
    listening = socket.socket(family, kind, proto)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)  # connections have it from here
        listening.bind(place)
        listening.listen(_BACKLOG)  # now, as two sockets that do not listen yet may be bound to one port
        listening.setblocking(False)
    except OSError as exc:
        listening.close()
        raise ServeError(f"{address}: {os.strerror(exc.errno) if exc.errno else exc}") from exc
    return listening


def is_loopback(listening: socket.socket) -> bool:
    """Whether only this machine can reach a socket: by what it is bound to, whatever it was called."""
    return ipaddress.ip_address(str(listening.getsockname()[0]).partition("%")[0]).is_loopback


def url_of(listening: socket.socket) -> str:
    """Where a browser finds it; of a socket that is bound to all addresses, by the name of this machine."""
    host, port = listening.getsockname()[:2]
    everywhere = ipaddress.ip_address(str(host).partition("%")[0]).is_unspecified
    return f"http://{socket.gethostname() if everywhere else _in_url(str(host))}:{port}/"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
