"""TCP keepalive: the kernel detects a peer that has vanished, even if neither side sends anything."""

from __future__ import annotations

import socket

IDLE_SECONDS, INTERVAL_SECONDS, PROBES = 15, 15, 9
"""The kernel detects the end of a vanished peer after about 150 s, as with Go's server."""


def keep_alive(sock: socket.socket) -> None:
    """Turn keepalive on; a socket that is not TCP stays as it is. Accepted sockets inherit it from their listening socket."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, INTERVAL_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
