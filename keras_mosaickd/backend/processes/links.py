"""Messages between two processes, and the end of either noticed at once.

A process that dies closes its connections, whatever killed it; a machine that vanishes is noticed
by TCP's own probes. What is sent is bytes and numbers: nothing is unpickled.
"""

import io
import json
import secrets
import socket
import struct
import threading
import time

import numpy as np

_HEADER = struct.Struct(">cQ")
_TOKEN = 16
_JOINING = 60
# A machine that is gone is noticed after 10 + 3 * 4 seconds.
_PROBES = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 4), ("TCP_KEEPCNT", 3))


class Link:
    """One connection.

    Args:
        connection: connected socket.
        rank: number of the process at its other end.
        host: name of that one's machine.
    """

    def __init__(self, connection, rank, host):
        self.rank, self.host = rank, host
        self._socket = connection
        self._lock = threading.Lock()
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _PROBES:
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, kind, content=b""):
        """Sends a message of one kind, a byte; raises OSError where the other one has gone."""
        with self._lock:
            self._socket.sendall(_HEADER.pack(kind, len(content)))
            self._socket.sendall(content)

    def receive(self):
        """The next message as `(kind, content)`; None where the other one has gone."""
        header = _exactly(self._socket, _HEADER.size)
        if header is None:
            return None
        kind, size = _HEADER.unpack(header)
        content = _exactly(self._socket, size)
        return None if content is None else (kind, content)


def as_bytes(array):
    """An array as a .npy file's content."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def as_array(content):
    """What `as_bytes` was given."""
    return np.load(io.BytesIO(content), allow_pickle=False)


def join_bytes(parts):
    """Several contents as one."""
    return b"".join(struct.pack(">Q", len(part)) + part for part in parts)


def split_bytes(content):
    """What `join_bytes` was given."""
    parts, place = [], 0
    while place < len(content):
        (size,) = struct.unpack_from(">Q", content, place)
        parts.append(content[place + 8 : place + 8 + size])
        place += 8 + size
    return parts


def links(rank, count, host, broadcast):
    """The connections of a process: the chief's to all others, everyone else's to the chief.

    Args:
        rank: this process's number.
        count: how many there are.
        host: what the launcher calls the chief's machine, or empty.
        broadcast: gives the chief's uint8 array of 1024 to all.

    Raises:
        RuntimeError: where a connection is not made within a minute.
    """
    return _accepted(count, broadcast) if rank == 0 else [_connected(rank, host, broadcast)]


def _accepted(count, broadcast):
    token = secrets.token_bytes(_TOKEN)
    found: list[Link] = []
    with socket.create_server(("", 0), backlog=count) as server:
        place = {"port": server.getsockname()[1], "token": token.hex(), "hosts": _host_names()}
        text = json.dumps(place).encode()
        broadcast(np.frombuffer(text.ljust(1024), np.uint8))
        deadline = time.monotonic() + _JOINING
        while len(found) < count - 1:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                known = {0, *(link.rank for link in found)}
                missing = sorted(set(range(count)) - known)
                raise RuntimeError(
                    f"process {missing[0]} of {count} does not connect to the chief within "
                    f"{_JOINING} s: do the machines reach each other by TCP?"
                ) from None
            connection.settimeout(10)
            hello = _exactly(connection, _TOKEN + 4 + 64)
            if hello is None or not secrets.compare_digest(hello[:_TOKEN], token):
                connection.close()  # somebody else
                continue
            (number,) = struct.unpack_from(">I", hello, _TOKEN)
            found.append(Link(connection, number, hello[_TOKEN + 4 :].decode().strip()))
    return sorted(found, key=lambda link: link.rank)


def _connected(rank, host, broadcast):
    place = json.loads(broadcast(np.zeros(1024, np.uint8)).tobytes().decode())
    here = socket.gethostname()
    names = [host, *place["hosts"]]
    if here in names:
        names.insert(0, "127.0.0.1")
    deadline = time.monotonic() + _JOINING
    while time.monotonic() < deadline:
        for name in filter(None, dict.fromkeys(names)):
            try:
                connection = socket.create_connection((name, place["port"]), timeout=5)
            except OSError:
                continue
            connection.sendall(bytes.fromhex(place["token"]) + struct.pack(">I", rank))
            connection.sendall(here[:64].ljust(64).encode()[:64])
            return Link(connection, 0, place["hosts"][0])
        time.sleep(0.5)
    raise RuntimeError(
        f"process {rank} cannot connect to the chief's port {place['port']} at "
        f"{', '.join(filter(None, names))}: do the machines reach each other by TCP?"
    )


def _host_names():
    names = [socket.gethostname()]
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # Sends nothing: it only chooses the interface.
            probe.connect(("192.0.2.1", 9))
            names.append(probe.getsockname()[0])
    except OSError:
        pass
    return [name[:256] for name in names]


def _exactly(connection, size):
    content = bytearray()
    while len(content) < size:
        try:
            part = connection.recv(min(1 << 20, size - len(content)))
        except OSError:
            return None
        if not part:
            return None
        content += part
    return bytes(content)
