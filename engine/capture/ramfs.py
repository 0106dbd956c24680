"""The directory of extracted files: their names, and leases that say how long each of them stays.

Removes only files that it made itself. Everything here runs on the loop thread.
"""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv6Address
from pathlib import Path

from engine.values.errors import ConfigError

NAME_BYTES = 120
"""Upper bound of a name from `name_for`; the suffix of a part comes on top."""

_SHARED_MEMORY = Path("/dev/shm")
_FLAGS = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_FLOW = re.compile(rb"..[A-D]:([0-9A-F.]+):p-([0-9A-F]{4})_([0-9A-F.]+):p-([0-9A-F]{4})")
_KEY4_BYTES = 41  # of a flow key of IPv4, in which each part has its place
_OCTETS = {b"%02X" % octet: str(octet) for octet in range(256)}
_PART = ".part"
_HOST_BYTES = 32


class Ramfs:
    """A directory and the files that extraction put there.

    A file is made by `append`, and is given out by `publish`, which starts its lease with a count of 1. It is
    removed when `release` takes the count to zero, or by `discard` before it was published, or by `close`.
    """

    def __init__(self, directory: Path | None = None, *, alias: str | None = None) -> None:
        """Use `directory`, made if missing; or a fresh private one in shared memory, else in the temp folder.

        `alias` is what records call a fresh one, whose name is another at each run.
        Raises `ConfigError` when it cannot be made or written to.
        """
        self._made = directory is None
        try:
            self.directory = _fresh_directory() if directory is None else _given_directory(directory)
        except OSError as exc:
            raise ConfigError(f"ramfs {str(directory or tempfile.gettempdir())!r}: {exc.strerror}") from exc
        self._prefix = f"{self.directory}/"
        self._shown_prefix = f"{alias}/" if alias is not None and self._made else self._prefix
        self._own: dict[str, int] = {}  # files on disk, published or not, and their bytes
        self.held_bytes = 0
        """Bytes of all files that are there."""
        self._leases: dict[int, tuple[str, int]] = {}
        self._last_lease = 0
        self._last_number = 0
        self._closed = False

    def name_for(self, flow: bytes, host: str, uri: str) -> str:
        """A name for a body: both ends of the flow, a running number, the host, the last path element.

        Only ``[A-Za-z0-9._-]``, at most `NAME_BYTES`, no leading dot. The number makes it unique; names that
        something else already has in the directory are stepped over.
        """
        last = _safe(uri.partition("?")[0].partition("#")[0].rstrip("/").rpartition("/")[2])
        ends, middle = _ends(flow), _safe_host(host)
        while True:
            self._last_number += 1
            start = f"{ends}_{self._last_number:06d}"
            room = NAME_BYTES - len(start) - 3
            if middle:
                start += "_" + middle[: min(_HOST_BYTES, room // 2)]
                room = NAME_BYTES - len(start) - 2
            # The end of the last element is kept, for its extension. Scripts tell parts by their suffix.
            name = f"{start}_{last[-room:]}" if last else start
            if name.endswith(_PART):
                name += "_"
            if self._made or not self._is_taken(name):  # nobody else writes to a private directory
                return name

    def _is_taken(self, name: str) -> bool:
        path = self._prefix + name
        return os.path.lexists(path) or os.path.lexists(f"{path}.0.part")

    def path_of(self, name: str) -> str:
        """The full path of a name."""
        return self._prefix + name

    def shown(self, path: str) -> str:
        """What records call a path of `path_of`."""
        return self._shown_prefix + path.removeprefix(self._prefix)

    def append(self, path: str, data: bytes | bytearray) -> None:
        """Write to the end of `path`, making it when it is not ours yet. Raises `OSError`; what is there then stays."""
        if path in self._own:
            handle = os.open(path, _FLAGS | os.O_APPEND)
        else:
            handle = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
            self._own[path] = 0
        try:
            while data:
                written = os.write(handle, data)
                self._own[path] += written
                self.held_bytes += written
                if written == len(data):
                    break
                data = data[written:]
        finally:
            os.close(handle)

    def rename(self, path: str, target: str) -> None:
        """Rename a file that was not published yet. Raises `OSError`."""
        if os.path.lexists(target):
            raise FileExistsError(f"{target} exists already")
        Path(path).rename(target)
        self._own[target] = self._own.pop(path)

    def discard(self, path: str) -> None:
        """Remove a file of ours, if it is there; the file of a lease goes through `release` instead."""
        if path in self._own:
            self.held_bytes -= self._own.pop(path)
            # Both in the least that Python can do: this comes once for each file.
            try:  # noqa: SIM105
                os.unlink(path)  # noqa: PTH108
            except OSError:
                pass  # a script may have moved or removed it

    def publish(self, path: str) -> int:
        """Start the lease of a file that `append` made; returns its id, with a count of 1."""
        if path not in self._own:
            raise ValueError(f"{path!r} is not a file of this directory")
        self._last_lease += 1
        self._leases[self._last_lease] = (path, 1)
        return self._last_lease

    def hold(self, lease: int) -> None:
        """Count one more user of a file. Raises `KeyError` when the lease has ended; does nothing after `close`."""
        self._count(lease, 1)

    def release(self, lease: int) -> None:
        """Count one user less; the last one removes the file. As `hold`, but for late users of a closed directory."""
        self._count(lease, -1)

    @property
    def leases(self) -> int:
        """Files that are published and not yet released."""
        return len(self._leases)

    def close(self) -> None:
        """Remove what is left of our files, and the directory when we made it. May be called again."""
        self._closed = True
        self._leases.clear()
        for path in sorted(self._own):
            self.discard(path)
        if self._made:
            with suppress(OSError):  # a script put something else there: that stays
                self.directory.rmdir()

    def _count(self, lease: int, change: int) -> None:
        if self._closed:
            return
        path, count = self._leases[lease]
        if count + change > 0:
            self._leases[lease] = (path, count + change)
        else:
            del self._leases[lease]
            self.discard(path)


def _fresh_directory() -> Path:
    shared = _SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK | os.X_OK)
    return Path(tempfile.mkdtemp(prefix="offpath-", dir=_SHARED_MEMORY if shared else None))


def _given_directory(directory: Path) -> Path:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(13, "not writable")
    return directory.absolute()


def _safe(text: str) -> str:
    return _UNSAFE.sub("-", text).strip(".-_")


@lru_cache(maxsize=1024)  # asked once per body, and hosts are few
def _safe_host(host: str) -> str:
    return _safe(host)


@lru_cache(maxsize=1024)  # asked once per body, and a flow often has many
def _ends(flow: bytes) -> str:
    """Both ends of a flow key (spec 3.2) as ``10.0.0.5-40000_10.0.0.9-80``, A first: the lower port is at Z."""
    if len(flow) == _KEY4_BYTES:
        with suppress(KeyError, ValueError):
            return _ends4(flow)
    match = _FLOW.match(flow)
    if match is None:
        return _safe(flow.decode("ascii", "replace"))[:48] or "flow"
    address_a, port_a, address_z, port_z = match.groups()
    return f"{_address(address_a)}-{int(port_a, 16)}_{_address(address_z)}-{int(port_z, 16)}"


def _ends4(flow: bytes) -> str:
    """The same of a key of IPv4. Raises `LookupError` or `ValueError` for what is none."""
    of = _OCTETS
    a = f"{of[flow[4:6]]}.{of[flow[7:9]]}.{of[flow[10:12]]}.{of[flow[13:15]]}"
    z = f"{of[flow[23:25]]}.{of[flow[26:28]]}.{of[flow[29:31]]}.{of[flow[32:34]]}"
    return f"{a}-{int(flow[18:22], 16)}_{z}-{int(flow[37:], 16)}"


def _address(key: bytes) -> str:
    if b"." in key:
        return ".".join(str(int(octet or b"0", 16)) for octet in key.split(b".")[:4])
    # ":" is not safe in a name; the prefix keeps "::1" from starting it with a dash.
    return "v6-" + str(IPv6Address(int(key, 16) % (1 << 128))).replace(":", "-")
