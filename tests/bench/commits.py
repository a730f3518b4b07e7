"""pgbench: commits per second of a statement, and the plain insert that all else is compared with."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import fmean
from typing import TypeVar

from bench.place import Place

Result = TypeVar("Result")
INSERT = "insert into bench.commit (amount) values (1)"


WARM_UP = 1
"""Seconds that do not count: sessions read the catalog and plan their statements, those of triggers as well."""


def rate(where: Place, statement: str, clients: int, seconds: float) -> float:
    """How often per second so many clients carry out a statement and commit it, prepared once per client and warmed up.

    Less than a second is not measured but tried: ten transactions for each tenth.
    """
    span = ("-T", str(WARM_UP + round(seconds))) if seconds >= 1 else ("-t", str(max(1, round(seconds * 100))))
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(statement + ";\n")
        script.flush()
        done = subprocess.run(
            [
                *(where.pgbench, "-n", "-M", "prepared", "-P", str(WARM_UP), "-f", script.name),
                *("-c", str(clients), "-j", str(min(clients, 2)), *span, where.dsn),
            ],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    found = re.search(r"^tps = ([0-9.]+)", done.stdout, re.MULTILINE)
    if done.returncode or found is None:
        raise RuntimeError(f"pgbench failed: {(done.stderr or done.stdout).strip()[-1000:]}")
    return _after_warm_up(float(found[1]), done.stdout, done.stderr) if seconds >= 1 else float(found[1])


def _after_warm_up(overall: float, results: str, progress: str) -> float:
    """The rate without what pgbench says in its first line of progress."""
    count = re.search(r"^number of transactions actually processed: (\d+)", results, re.MULTILINE)
    first = re.search(r"^progress: ([0-9.]+) s, ([0-9.]+) tps", progress, re.MULTILINE)
    if count is None or first is None:
        raise RuntimeError(f"pgbench said nothing of its progress: {progress.strip()[-1000:]}")
    warm, cold_rate = float(first[1]), float(first[2])
    return (int(count[1]) - warm * cold_rate) / (int(count[1]) / overall - warm)


@dataclass
class Anchor:
    """The rate of plain single-row commits, measured over and over between everything else."""

    where: Place
    seconds: float
    rates: dict[int, list[float]] = field(default_factory=dict)

    def measure(self, clients: int) -> float:
        """Once more."""
        found = rate(self.where, INSERT, clients, self.seconds)
        self.rates.setdefault(clients, []).append(found)
        return found

    def around(self, clients: int, measure: Callable[[], Result]) -> tuple[Result, float]:
        """Measure something, and the anchor before and after it: what came out, and the mean of the two anchors."""
        (found,) = self.between(clients, measure, 1)
        return found

    def between(self, clients: int, measure: Callable[[], Result], times: int) -> Iterator[tuple[Result, float]]:
        """The same several times over, where what comes after one turn is what comes before the next."""
        before = self.measure(clients)
        for _ in range(times):
            result = measure()
            after = self.measure(clients)
            yield result, fmean([before, after])
            before = after
