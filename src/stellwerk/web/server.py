"""Serves the web application inside a process that has other things to do as well."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator

import uvicorn
from litestar import Litestar

from stellwerk.errors import StellwerkError
from stellwerk.web.app import make_app


class Server(uvicorn.Server):
    """Leaves the signals to its process, which has more to end than the web."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Live streams end first: they are answers that would never end by themselves."""
        live = getattr(getattr(self.config.app, "state", None), "live", None)
        if live is not None:
            live.stop()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Take the port, or say that it is taken. What is accepted on it sends at once, without waiting for more to send.

    asyncio sets that only on sockets that name their protocol, which these do not; the second part of an answer
    would wait for the client's delayed acknowledgement of the first, some 40 ms.
    """
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise StellwerkError(
            f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}",
            hint="Choose another one with --port.",
        ) from None
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited by what is accepted
    return listener


def configuration(app: Litestar) -> uvicorn.Config:
    """How an application is served; open answers get three seconds to end."""
    # The parser is named: the other one takes a request that announces its length in two ways.
    return uvicorn.Config(
        app,
        http="httptools",
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=3,
    )


async def serve(dsn: str, listener: socket.socket, stop: asyncio.Event) -> None:
    """Answer requests until `stop` is set."""
    server = Server(configuration(make_app(dsn)))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    stopping.cancel()
    await serving
