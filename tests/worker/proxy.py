"""A TCP proxy in a thread that can freeze: connections stay open and nothing passes, as when a network forgets them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class Proxy:
    """Between a worker and its server."""

    def __init__(self, dsn: str) -> None:
        told: dict[str, Any] = conninfo_to_dict(dsn)
        self._target = (str(told["host"]), int(told["port"]))
        self._loop = asyncio.new_event_loop()
        self._frozen: list[asyncio.Event] = []
        self._writers: list[asyncio.StreamWriter] = []
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait(5)
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=self.port)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        flowing = asyncio.Event()
        flowing.set()
        self._frozen.append(flowing)
        inner_reader, inner_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, inner_writer]
        await asyncio.gather(
            self._pass(reader, inner_writer, flowing), self._pass(inner_reader, writer, flowing), return_exceptions=True
        )

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    def freeze(self) -> int:
        """Let nothing pass on the connections that are open now; new ones work. Answers how many are frozen."""
        for flowing in self._frozen:
            self._loop.call_soon_threadsafe(flowing.clear)
        return len(self._frozen)

    def close(self) -> None:
        """Cut everything."""

        def cut() -> None:
            for writer in self._writers:
                writer.close()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.call_later(0.1, self._loop.stop)

        self._loop.call_soon_threadsafe(cut)
        self._thread.join(5)
