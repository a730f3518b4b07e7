"""Serves the web application inside a process that has other things to do as well."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator

import uvicorn

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
    """Take the port, or say that it is taken."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise StellwerkError(
            f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}",
            hint="Choose another one with --port.",
        ) from None


async def serve(dsn: str, listener: socket.socket, stop: asyncio.Event) -> None:
    """Answer requests until `stop` is set; open answers get three seconds to end."""
    # The parser is named: the other one takes a request that announces its length in two ways.
    config = uvicorn.Config(
        make_app(dsn),
        http="httptools",
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="on",
        timeout_graceful_shutdown=3,
    )
    server = Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    stopping.cancel()
    await serving
