"""Workers for tests: in a thread of this process, or as processes that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from worker.puppet import puppets

from stellwerk.executors import Executor
from stellwerk.settings import Settings
from stellwerk.worker.run import run_worker


class WorkerThread:
    """A worker with its own event loop; `ask_to_stop` is what SIGTERM does."""

    def __init__(self, dsn: str, executors: Mapping[str, Executor[Any, Any]], **options: Any) -> None:
        self._dsn = dsn
        self._executors = executors
        self._options = options
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(20), "the worker did not start"
        if self.error:
            raise self.error

    def _run(self) -> None:
        async def work() -> None:
            self._loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            ready = asyncio.Event()
            task = asyncio.create_task(
                run_worker(
                    Settings(
                        home=Path("/nonexistent"),
                        allowed_hosts=("127.0.0.1", "localhost"),
                        smtp_url=self._options.pop("smtp_url", None),
                        base_url="https://stellwerk.example.org",
                    ),
                    dsn=self._dsn,
                    executors=self._executors,
                    stop=self._stop,
                    ready=ready,
                    **self._options,
                )
            )
            await asyncio.wait({task, asyncio.create_task(ready.wait())}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self._ready.set()
            await task

        try:
            asyncio.run(work())
        except BaseException as error:
            self.error = error
        finally:
            self._ready.set()

    def ask_to_stop(self) -> None:
        """Let it end what it carries out, and take no more."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)

    def stop(self, seconds: float = 30.0) -> None:
        """Let it end and wait for that."""
        self.ask_to_stop()
        self.join(seconds)

    def join(self, seconds: float = 30.0) -> None:
        """Wait until it has ended by itself."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the worker did not end"
        if self.error:
            raise self.error


@pytest.fixture
def start_worker(dsn: str) -> Iterator[Callable[..., WorkerThread]]:
    """Start workers whose three node types are played by puppets, unless told otherwise."""
    started: list[WorkerThread] = []

    def start(executors: Mapping[str, Executor[Any, Any]] | None = None, **options: Any) -> WorkerThread:
        place = options.pop("dsn", dsn)
        worker = WorkerThread(place, puppets() if executors is None else executors, **options)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        with contextlib.suppress(BaseException):
            worker.stop()


class WorkerProcess:
    """A worker that is a process of its own."""

    def __init__(self, dsn: str, log: Path, environment: Mapping[str, str], module: str = "worker.puppet") -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, dsn],
                cwd=Path(__file__).parent.parent,
                env={**os.environ, **environment},
                stdout=out,
                stderr=out,
            )

    def kill(self) -> None:
        """As the kernel kills: no warning."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        """Ask it to stop."""
        self.process.send_signal(signal.SIGTERM)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    @property
    def said(self) -> str:
        """What it logged."""
        return self.log.read_text()


@pytest.fixture
def spawn_worker(dsn: str, tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Start worker processes; `dsn` and `module` may be given, every other keyword is an environment variable."""
    started: list[WorkerProcess] = []

    def spawn(*, dsn: str = dsn, module: str = "worker.puppet", **environment: str) -> WorkerProcess:
        worker = WorkerProcess(dsn, tmp_path / f"worker-{len(started)}.log", environment, module)
        started.append(worker)
        return worker

    yield spawn
    for worker in started:
        if worker.running:
            worker.kill()


@pytest.fixture
def chain(make_workflow: Callable[..., str]) -> Callable[..., str]:
    """Publish a workflow of worker steps, one after the other, each told by its script what to do."""

    def make(slug: str, *scripts: str, **node: Any) -> str:
        steps = [{"id": "start", "type": "trigger.manual", "config": {}}]
        steps += [
            {"id": f"w{number}", "type": "action.fonio_call", "config": {"script": script}, **node}
            for number, script in enumerate(scripts, 1)
        ]
        return make_workflow({"slug": slug, "name": slug, "steps": steps})

    return make


@pytest.fixture
def state_of(db: psycopg.Connection[Any]) -> Callable[[int], str]:
    """The state of a run."""

    def state(run_id: int) -> str:
        row = db.execute("select state from stellwerk.run where run_id = %s", [run_id]).fetchone()
        return str(row[0]) if row else "unknown"

    return state


@pytest.fixture
def steps_of(db: psycopg.Connection[Any]) -> Callable[[int], list[dict[str, Any]]]:
    """The worker steps of a run."""

    def steps(run_id: int) -> list[dict[str, Any]]:
        cursor = db.cursor(row_factory=psycopg.rows.dict_row)
        return cursor.execute(
            "select node_id, state, attempt, failures, output, error from stellwerk.step"
            " where run_id = %s and runs_in = 'worker' order by step_id",
            [run_id],
        ).fetchall()

    return steps
