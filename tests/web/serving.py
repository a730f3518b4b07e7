"""An application served by uvicorn in a thread, for tests that come as a browser or a stranger comes: over HTTP."""

from __future__ import annotations

import asyncio
import threading
import time

from litestar import Litestar

from stellwerk.web.server import Server, configuration, listen


class Serving:
    """An application as `stellwerk web` serves it; `url` is where it answers."""

    def __init__(self, app: Litestar) -> None:
        self.app = app
        listener = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server = Server(configuration(app))
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._server.serve(sockets=[listener])), name="web", daemon=True
        )
        self._thread.start()

    def stop(self, seconds: float = 10.0) -> float:
        """End it as SIGTERM does, and wait for that; answers how long it took."""
        began = time.monotonic()
        self._server.should_exit = True
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the web server did not end"
        return time.monotonic() - began
