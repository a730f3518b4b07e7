"""The socket that the application is served on."""

from __future__ import annotations

import socket

from stellwerk.web.server import listen


def test_what_is_accepted_sends_at_once() -> None:
    """asyncio asks for it only on sockets that name their protocol, which those of `create_server` do not."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname(), 5):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
