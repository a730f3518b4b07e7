"""The schema as it stood before loops, waits and calls, and workflows as the compiler of that time compiled them.

`before_engine.tar.xz` holds `migrations/` (0001 to 0006) and `sql/` of the last commit before `migrations/0007_engine.sql`
came, unchanged, and `workflows.json`: of each document below the document, the plan and the problems that the compiler of
that commit answered. It is frozen: databases like it exist. It was made from a checkout of that commit (the parent of the
one that `git log --diff-filter=A -- migrations/0007_engine.sql` names) by

    python tests/data/before_engine.py CHECKOUT
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

ARCHIVE = Path(__file__).with_suffix(".tar.xz")
HOUR = {"interval": "PT1H", "backoff": 1, "jitter": False}


def _document(slug: str, nodes: list[dict[str, Any]], edges: str, **more: Any) -> dict[str, Any]:
    """Edges are written "a>b, b.port>c"."""
    parsed = []
    for edge in edges.split(","):
        source, target = edge.strip().split(">")
        name, _, port = source.partition(".")
        parsed.append({"from": name, "to": target, **({"port": port} if port else {})})
    return {
        "slug": slug,
        "name": slug,
        "nodes": [{"id": "start", "type": "trigger.manual"}, *nodes],
        "edges": parsed,
        **more,
    }


def _call(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "type": "action.fonio_call", "config": {"phone": "{{ trigger.payload.phone }}"}, **more}


def _node(name: str, kind: str, config: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": name, "type": kind, "config": config, **more}


def _value(name: str, output: Any) -> dict[str, Any]:
    return _node(name, "logic.transform", {"output": output})


DOCUMENTS: list[dict[str, Any]] = [
    _document(
        "straight",
        [_call("one", retry={"max_attempts": 3, **HOUR}), _value("two", "{{ steps.one.output.said }}"), _call("three"),
         _value("end", {"one": "{{ steps.one.output.said }}", "three": "{{ steps.three.output.said }}"})],
        "start>one, one>two, two>three, three>end",
        settings={"timeout": "P30D", "priority": 3},
    ),
    _document(
        "branches",
        [_call("a"), _call("b"), _node("c", "logic.set", {"values": {"seen": "{{ trigger.payload.phone }}"}}), _call("b2"),
         _value("meet", ["{{ steps.a.output.said }}", "{{ steps.b2.output.said }}", "{{ vars.seen }}"]), _call("last"),
         _node("end", "logic.stop", {"result": "{{ steps.meet.output }}"})],
        "start>a, start>b, start>c, b>b2, a>meet, b2>meet, c>meet, meet>last, last>end",
    ),
    _document(
        "nested",
        [_call("a"), _call("b"), _call("c"), _node("inner", "action.fonio_call", {"phone": "{{ trigger.payload.phone }}"}),
         _node("choose", "logic.switch", {"cases": [{"port": "x", "when": "trigger.payload.way = 'x'"}]}), _value("x", 1), _value("y", 2),
         _value("outer", {"x": "{{ steps.x.output }}", "y": "{{ steps.y.output }}", "inner": "{{ steps.inner.output.said }}"})],
        "start>a, start>b, a>inner, b>inner, start>c, c>choose, choose.case:x>x, choose.default>y, x>outer, y>outer, inner>outer",
    ),
    _document(
        "again",
        [_node("count", "logic.set", {"values": {"n": "{{ coalesce(vars.n, 0) + 1 }}"}}), _call("try"),
         _node("enough", "logic.if", {"condition": "vars.n >= 3"}), _value("end", "{{ vars.n }}")],
        "start>count, count>try, try>enough, enough.false>count, enough.true>end",
    ),
    _document(
        "routed",
        [_call("risky", retry={"max_attempts": 2, **HOUR}), _call("careless", on_error="continue", retry={"max_attempts": 1}),
         _value("glad", "good"), _value("sorry", "{{ steps.risky.error.class }}"), _call("end")],
        "start>risky, risky>glad, risky.error>sorry, glad>careless, sorry>careless, careless>end",
    ),
    _document(
        "records",
        [_node("write", "record.create", {"table": "orders", "values": {"name": "{{ trigger.payload.phone }}"}}), _call("ask"),
         _node("check", "sql.function", {"function": "check", "input": {"said": "{{ steps.ask.output.said }}"}}, retry={"max_attempts": 3, **HOUR}),
         _node("case", "action.backoffice_push", {"status": "open", "summary": "{{ trigger.payload.phone }}"}),
         _node("log", "log.write", {"message": "done"}), _value("end", "{{ steps.check.output }}")],
        "start>write, write>ask, ask>check, check>case, case>log, log>end",
    ),
    _document(
        "stopping",
        [_call("a"), _call("b"), _node("halt", "logic.stop", {"outcome": "failed", "message": "no"}), _value("end", 1)],
        "start>a, start>b, a>halt, b>end",
    ),
    {
        "slug": "by-row",
        "name": "by-row",
        "nodes": [{"id": "row", "type": "trigger.row"}, _call("ring"), _value("end", "{{ trigger.row.name }}")],
        "edges": [{"from": "row", "to": "ring"}, {"from": "ring", "to": "end"}],
    },
]  # fmt: skip


def unpack(folder: Path) -> list[dict[str, Any]]:
    """Puts the old `migrations/` and `sql/` into a folder, and answers the old workflows: { document, plan, problems }."""
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            text = archive.extractfile(member)
            assert text is not None
            (folder / member.name).parent.mkdir(exist_ok=True)
            (folder / member.name).write_bytes(text.read())
    found: list[dict[str, Any]] = json.loads((folder / "workflows.json").read_text())
    return found


def main(checkout: Path) -> None:
    sys.path.insert(0, str(checkout / "src"))
    from stellwerk.definition.compile import compile_workflow

    found = []
    for document in DOCUMENTS:
        compiled = compile_workflow(document)
        assert compiled.is_publishable, compiled.problems
        problems = [problem.as_json() for problem in compiled.problems]
        found.append({"document": compiled.document, "plan": compiled.plan, "problems": problems})
    with tarfile.open(ARCHIVE, "w:xz") as archive:
        texts = {f"{folder}/{path.name}": path.read_bytes() for folder in ("migrations", "sql") for path in sorted((checkout / folder).glob("*.sql"))}  # fmt: skip
        texts["workflows.json"] = json.dumps(found).encode()
        for name, text in texts.items():
            about = tarfile.TarInfo(name)
            about.size = len(text)
            archive.addfile(about, io.BytesIO(text))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
