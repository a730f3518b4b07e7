"""The documentation is true: what the pages show is run, compiled, compared and followed.

A fenced block says by its first line what it is. Blocks of one page share a fresh database and run in order;
whatever they start is carried to its end before the next block.

    ```sql run                  statements of an ordinary connection
    ```sql fails SW001          the same, and the last one must raise that SQLSTATE
    ```text result              what the last statement before it answered, as psql shows it
    ```json workflow [FILE]     a workflow document: it must compile; with a name it is a file for the commands after it
    ```json broken FILE         a file with a document that has errors, for the commands after it
    ```console run              lines that begin with `$ stellwerk` are run, the others are what they print
    ```text demo                what `stellwerk demo` prints

In expected text `…` stands for anything, and a line that is only `…` for any number of lines. Blocks with other first
lines are for the eye alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from logging_kept import logging_kept

from stellwerk.cli import execute

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
FENCE = re.compile(r"^( *)(`{3,})([^\n`]*)\n(.*?)^\1\2 *$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
MUST_NOT_STAND_THERE = re.compile(r"/root/|/work/|session transcript|\bissue #?\d", re.IGNORECASE)


@dataclass(frozen=True)
class Block:
    """A fenced block: the words of its first line, its text, and where it stands."""

    words: tuple[str, ...]
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in FENCE.finditer(text):
        indent = len(found[1])
        body = "".join(line[indent:] if line.strip() else line for line in found[4].splitlines(keepends=True))
        yield Block(tuple(found[3].split()), body, text.count("\n", 0, found.start()) + 2)


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def is_run(page: Path) -> bool:
    return any(block.words[:2] in (("sql", "run"), ("console", "run"), ("sql", "fails")) for block in blocks(page))


# -- running a page ---------------------------------------------------------------------------------------------------


class Reader:
    """Somebody who follows a page, word for word."""

    def __init__(self, dsn: str, folder: Path, run_all: Callable[..., int]) -> None:
        self.dsn = dsn
        self.folder = folder
        self.run_all = run_all
        self.connection = psycopg.connect(dsn, autocommit=True)
        self.answer: list[list[str]] = []

    def follow(self, block: Block) -> None:
        match block.words[:2]:
            case "sql", "run":
                self.query(block.text)
            case "sql", "fails":
                with pytest.raises(psycopg.Error) as raised:
                    self.query(block.text)
                assert raised.value.sqlstate == block.words[2]
            case "text", "result":
                compare(block.text, psql(self.answer))
                return
            case "json", "workflow" | "broken" if len(block.words) > 2:
                (self.folder / block.words[2]).write_text(block.text)
                return
            case "console", "run":
                self.type_in(block.text)
            case _:
                return
        self.settle()

    def query(self, statements: str) -> None:
        cursor = self.connection.execute(statements.encode())
        while cursor.nextset():
            pass
        self.answer = []
        if cursor.description:
            result = cursor.pgresult
            texts = [
                [(result.get_value(row, column) or b"").decode() for column in range(result.nfields)]
                for row in range(result.ntuples)
            ]
            self.answer = [[column.name for column in cursor.description], *texts]

    def type_in(self, text: str) -> None:
        command, expected = "", ""
        for line in [*text.splitlines(keepends=True), "$ "]:
            if not line.startswith("$ "):
                expected += line
                continue
            if command:
                compare(expected, self.command(command))
            command, expected = line[2:].strip(), ""

    def command(self, command: str) -> str:
        program, *arguments = shlex.split(command)
        assert program == "stellwerk", f"only stellwerk is run, not {program}"
        said = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
        with (
            logging_kept(),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            execute(arguments)
        return said.buffer.getvalue().decode()  # type: ignore[attr-defined]

    def settle(self) -> None:
        """Carry everything as far as it goes, as a worker would that the reader has running."""
        waiting: list[Any] = []
        for _ in range(20):
            self.run_all(self.connection)
            queued = self.connection.execute(
                "select step_id from stellwerk.step where state = 'queued' and runs_in = 'worker' and due_at is null order by 1"
            ).fetchall()
            if queued == waiting:  # none, or such as wait for their turn
                return
            waiting = queued
            from stellwerk.settings import Settings
            from stellwerk.worker.run import run_worker

            asyncio.run(run_worker(Settings.from_environment({}), dsn=self.dsn, drain=True))
        raise AssertionError("the steps of this page do not come to an end")


@pytest.mark.one_server
@pytest.mark.parametrize("page", [page for page in PAGES if is_run(page)], ids=name_of)
def test_a_page_does_what_it_says(page, dsn, tmp_path, run_all, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", dsn)
    reader = Reader(dsn, tmp_path, run_all)
    with reader.connection:
        for block in blocks(page):
            try:
                reader.follow(block)
            except (psycopg.Error, AssertionError) as error:
                raise AssertionError(f"{name_of(page)}, line {block.line}: {error}") from error


# -- comparing --------------------------------------------------------------------------------------------------------


def psql(answer: list[list[str]]) -> str:
    return "\n".join(" | ".join(row) for row in answer)


def compare(expected: str, actual: str) -> None:
    """Line by line; spaces count as one, lines of a table's frame not at all."""
    want, have = essential(expected), essential(actual)
    assert matches(want, have), "expected\n" + "\n".join(want) + "\n\nbut got\n" + "\n".join(have)


def essential(text: str) -> list[str]:
    lines = (" ".join(line.replace("|", " | ").split()) for line in text.splitlines())
    return [line for line in lines if line and not re.fullmatch(r"[-+ ]+|\(\d+ rows?\)", line)]


def matches(want: list[str], have: list[str]) -> bool:
    if not want:
        return not have
    if want[0] == "…":
        return any(matches(want[1:], have[skipped:]) for skipped in range(len(have) + 1))
    pattern = re.sub(r"([\[*?])", r"[\1]", want[0]).replace("…", "*")
    return bool(have) and fnmatch.fnmatchcase(have[0], pattern) and matches(want[1:], have[1:])


def test_the_comparison_sees_differences():
    compare(" a | b\n---+---\n 1 | x\n(1 row)\n", "a | b\n1 | x")
    compare("a …\n…\nz [1]", "a b\nc\nd\nz [1]")
    for expected, actual in (("a\n", "b\n"), ("a\nb\n", "a\n"), ("a\n", "a\nb\n"), ("z [1]", "z 1")):
        with pytest.raises(AssertionError):
            compare(expected, actual)


# -- what stands on the pages -----------------------------------------------------------------------------------------


def documents() -> list[Any]:
    found = [(page, block) for page in PAGES for block in blocks(page) if block.words[:2] == ("json", "workflow")]
    return [pytest.param(block.text, id=f"{name_of(page)}:{block.line}") for page, block in found]


@pytest.mark.parametrize("document", documents())
def test_every_workflow_on_a_page_compiles(document):
    from stellwerk.definition.compile import compile_workflow

    assert [problem for problem in compile_workflow(document).problems if problem.severity == "error"] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in LINK.findall(prose(page)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), f"{name_of(page)} links to {target}"
        if anchor:
            assert anchor in anchors(other), f"{name_of(page)} links to {target}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_linked_from_the_readme():
    readme = PAGES[0]
    linked = {(readme.parent / target.partition("#")[0]).resolve() for target in LINK.findall(prose(readme))}
    assert [name_of(page) for page in PAGES[1:] if page.resolve() not in linked] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_speaks_of_the_project_alone(page):
    assert MUST_NOT_STAND_THERE.findall(page.read_text()) == []


# -- the README -------------------------------------------------------------------------------------------------------


def test_the_readme_begins_with_the_two_commands():
    commands = [block.text for block in blocks(PAGES[0]) if block.words == ("sh",)]
    lines = [line.partition(" #")[0].strip() for line in commands[0].splitlines()]
    assert lines == [
        "python3 -m venv .venv && .venv/bin/pip install -q . && .venv/bin/stellwerk demo",
        "python3 -m venv .venv && .venv/bin/pip install -q -e '.[dev]' && .venv/bin/pytest",
    ]


@pytest.mark.one_server
def test_the_demo_prints_what_the_readme_shows(dsn):
    shown = [block.text for block in blocks(PAGES[0]) if block.words == ("text", "demo")]
    assert shown
    done = subprocess.run(
        [sys.executable, "-m", "stellwerk", "demo", "--once"],
        env={**os.environ, "DATABASE_URL": dsn},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    compare(timeless(shown[0]), timeless(done.stdout))


def timeless(text: str) -> str:
    """Without durations, numbers of cases, and outputs, which are cut where the line ends."""
    text = re.sub(r"\d[\d.]* m?s\b", "TIME", text)
    text = re.sub(r"^(\d+ +)\d+ ", r"\1CASE ", text, flags=re.MULTILINE)
    return re.sub(r"\{.*", "", text)
