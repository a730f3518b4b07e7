"""The command: one run on one server, a table in the end."""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.commits import Anchor
from bench.documents import prepare
from bench.figures import GOALS, Figures, goal_lines, table
from bench.growth import full_history, later_steps, long_loops
from bench.measures import PARTS, Bench
from bench.place import Steal, place

ALL = {**PARTS, "age": later_steps, "history": full_history, "loop": long_loops}
ONCE = ("history",)  # measures in turns of its own, and filling the tables takes minutes


DISTURBED = 0.01
"""A part does not count during which the host of a virtual machine kept back more of its cores' time than this."""


class Again:
    """Which parts are measured again, each at most so often per round."""

    def __init__(self, figures: Figures, anchor: Anchor, at_most: int) -> None:
        self._figures, self._anchor, self._at_most = figures, anchor, at_most
        self.times = 0

    def until_undisturbed(self) -> Iterator[str]:
        """Once, and again as long as that was disturbed; what came to nothing is forgotten. Gives words for it."""
        words, left = "", self._at_most
        while True:
            before, steal = copy.deepcopy((self._figures.all, self._anchor.rates)), Steal()
            yield words
            share = steal.share
            if share is None or share <= DISTURBED or left == 0:
                return
            self._figures.all, self._anchor.rates = before
            self.times, left = self.times + 1, left - 1
            words = f", again, for the host kept back {share:.0%}"


def main(arguments: list[str] | None = None) -> int:
    """Measure and print. A missed goal is printed, not judged: the status says only whether everything ran."""
    options = _options(arguments)
    tell = (lambda text: None) if options.quiet else (lambda text: print(text, file=sys.stderr, flush=True))
    began = time.monotonic()
    with place(options.dsn, options.pg_bin) as where:
        about = where.about()
        tell(
            "PostgreSQL {server}, fsync {fsync}, synchronous_commit {synchronous_commit}, {cores} cores".format(**about)
        )
        prepare(where)
        figures, failed, steal = Figures(), list[str](), Steal()
        anchor = Anchor(where, options.seconds)
        bench = Bench(
            where,
            anchor,
            figures,
            options.seconds,
            options.runs,
            options.samples,
            options.age,
            options.history,
            options.items,
        )
        again = Again(figures, anchor, options.again)
        for number in range(1, options.rounds + 1):
            for name in options.only or ALL:
                if name in ONCE and number > 1:
                    continue
                for attempt in again.until_undisturbed():
                    tell(f"{time.monotonic() - began:4.0f} s  round {number} of {options.rounds}: {name}{attempt}")
                    try:
                        with where.connect() as connection:
                            connection.execute("checkpoint")
                        anchor.measure(1)
                        ALL[name](bench)
                    except Exception as problem:  # what the other parts have measured is worth printing
                        failed.append(f"{name}, round {number}: {type(problem).__name__}: {problem}".strip())
                        tell(failed[-1])
                        break
            anchor.measure(16)
        kept_back = steal.share
    ordered = _with_anchor(figures, anchor)
    if options.json:
        goals = [found for goal in GOALS if (found := goal.as_json(ordered))]
        print(
            json.dumps(
                {
                    "about": {**about, "steal": kept_back, "measured_again": again.times},
                    "figures": [f.as_json() for f in ordered.all.values()],
                    "goals": goals,
                },
                indent=2,
            )
        )
    else:
        print(
            "PostgreSQL {server}, fsync {fsync}, synchronous_commit {synchronous_commit}, {cores} cores".format(**about)
        )
        print()
        print(table(ordered))
        print()
        print("\n".join(goal_lines(ordered)))
        if kept_back is not None and kept_back >= DISTURBED:
            print(f"\nThe host of this virtual machine kept back {kept_back:.0%} of its cores' time meanwhile (steal).")
        if again.times:
            print(
                f"{again.times} parts were measured again, since it did so then; what they had come to does not count."
            )
    print("".join(f"FAILED: {line}\n" for line in failed), end="", file=sys.stderr)
    return 1 if failed else 0


def _with_anchor(figures: Figures, anchor: Anchor) -> Figures:
    """The plain commits first: everything else is read beside them."""
    ordered = Figures()
    for clients, rates in sorted(anchor.rates.items()):
        for value in rates:
            ordered.add(f"commits_{clients}", f"plain commits/s, {clients} client{'s' * (clients > 1)}", "1/s", value)
    ordered.all.update(figures.all)
    return ordered


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description="Measure Stellwerk beside plain commits on the same server in the same minutes."
    )
    parser.add_argument("--dsn", help="a server to use, with the right to create a database; else one is started")
    parser.add_argument("--pg-bin", type=Path, metavar="DIR", help="binaries of the server to start, and of pgbench")
    parser.add_argument("--only", action="append", choices=list(ALL), help="only this part; may be given again")
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken over so many rounds (3)")
    parser.add_argument(
        "--again", type=int, default=1, help="how often a part is measured again if the host disturbs it (1)"
    )
    parser.add_argument("--seconds", type=float, default=3, help="of each pgbench (3)")
    parser.add_argument(
        "--runs", type=int, default=8000, help="runs of the SQL and of the worker workflow, per turn (8000)"
    )
    parser.add_argument("--samples", type=int, default=200, help="rows whose latency is taken, per round (200)")
    parser.add_argument("--age", type=int, default=1000, help="the late step that is compared with the first (1000)")
    parser.add_argument("--history", type=int, default=5_000_000, help="finished steps in the full tables (5000000)")
    parser.add_argument("--items", type=int, default=10_000, help="of a long loop (10000)")
    parser.add_argument("--quick", action="store_true", help="everything once and briefly, to see that it works")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quiet", action="store_true", help="say nothing while it runs")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds, options.runs, options.samples, options.again = 1, 1, 50, 10, 0
        options.age, options.history, options.items = 50, 5000, 500
    return options
