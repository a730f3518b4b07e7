"""Ways through a workflow: ports, parallel branches, coming together, edges that lead back."""

from __future__ import annotations

import psycopg
import pytest
from database.helpers import START, Worker, call, document, node, run, start, states, steps, transform


def visited(db, run_id):
    return [s["node_id"] for s in steps(db, run_id)]


@pytest.mark.parametrize(("n", "way"), [(1, "low"), (50, "middle"), (500, "high")])
def test_switch_takes_the_first_case_that_holds(db, make_workflow, run_all, n, way):
    cases = [{"port": "low", "when": "trigger.payload.n < 10"}, {"port": "middle", "when": "trigger.payload.n < 100"}]
    slug = make_workflow(
        document(
            "choose",
            [
                START,
                node("which", "logic.switch", {"cases": cases}),
                transform("low", 1),
                transform("middle", 2),
                transform("high", 3),
            ],
            ["start -> which", "which.case:low -> low", "which.case:middle -> middle", "which.default -> high"],
        )
    )
    run_id = start(db, slug, {"n": n})
    run_all(db)
    assert visited(db, run_id) == ["start", "which", way]


def test_an_if_that_meets_again_never_blocks(db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "diamond",
            [
                START,
                node("ok", "logic.if", {"condition": "trigger.payload.ok"}),
                transform("yes", "y"),
                transform("no", "n"),
                transform("end", "done"),
            ],
            ["start -> ok", "ok.true -> yes", "ok.false -> no", "yes -> end", "no -> end"],
        )
    )
    for ok, way in ((True, "yes"), (False, "no"), (None, "no")):
        run_id = start(db, slug, {"ok": ok})
        run_all(db)
        assert visited(db, run_id) == ["start", "ok", way, "end"]
        assert run(db, run_id)["state"] == "completed"


def test_parallel_branches_come_together_once(db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "fork",
            [
                START,
                transform("a", 1),
                transform("b", 2),
                transform("b2", 3),
                transform("end", "{{ steps.a.output + steps.b2.output }}"),
            ],
            ["start -> a", "start -> b", "b -> b2", "a -> end", "b2 -> end"],
        )
    )
    run_id = start(db, slug)
    run_all(db)
    assert sorted(visited(db, run_id)) == ["a", "b", "b2", "end", "start"]
    assert run(db, run_id)["output"] == 4
    assert next(s for s in steps(db, run_id) if s["node_id"] == "end")["visit"] == 1


def test_a_fast_branch_waits_for_a_worker(dsn, db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "meet",
            [START, transform("fast", 1), call("slow"), transform("end", 2)],
            ["start -> fast", "start -> slow", "fast -> end", "slow -> end"],
        )
    )
    run_id = start(db, slug)
    run_all(db)
    assert states(db, run_id) == {"start": "completed", "fast": "completed", "slow": "queued", "end": "joining"}
    worker = Worker(dsn)
    assert worker.end(*worker.begin())["accepted"] == 1
    assert states(db, run_id)["end"] == "completed"
    assert run(db, run_id)["state"] == "completed"


def test_two_workers_ending_two_branches_at_once_meet_once(dsn, db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "both",
            [START, call("a"), call("b"), transform("end", 1)],
            ["start -> a", "start -> b", "a -> end", "b -> end"],
        )
    )
    ids = [start(db, slug) for _ in range(30)]
    run_all(db)
    import threading

    workers = [Worker(dsn), Worker(dsn)]
    halves = [[], []]
    for position, ref in enumerate(workers[0].queued()):
        halves[position % 2].append(ref)

    def work(worker, refs):
        for ref in refs:
            worker.end(*worker.begin([ref]))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(workers, halves, strict=True)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    for run_id in ids:
        assert run(db, run_id)["state"] == "completed"
        assert visited(db, run_id).count("end") == 1


def test_a_branch_that_ends_elsewhere_lets_the_others_go_on(dsn, db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "lost",
            [
                START,
                node("maybe", "logic.if", {"condition": "trigger.payload.go"}),
                transform("a", 1),
                call("b"),
                transform("end", 2),
            ],
            ["start -> maybe", "maybe.true -> a", "start -> b", "a -> end", "b -> end"],
        )
    )
    run_id = start(db, slug, {"go": False})
    run_all(db)
    worker = Worker(dsn)
    worker.end(*worker.begin())
    assert states(db, run_id)["end"] == "completed"


def test_nested_meetings_go_in_order(db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "nested",
            [START, *(transform(n, 1) for n in "abcdef")],
            ["start -> a", "start -> b", "a -> c", "b -> c", "start -> d", "c -> e", "d -> e", "e -> f", "start -> f"],
        )
    )
    run_id = start(db, slug)
    run_all(db)
    began = {s["node_id"]: s["started_at"] for s in steps(db, run_id)}
    assert sorted(visited(db, run_id)) == sorted(["start", *"abcdef"])
    assert began["a"] < began["c"] < began["e"] < began["f"]
    assert run(db, run_id)["state"] == "completed"


def test_an_edge_that_leads_back_counts_visits(db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "again",
            [
                START,
                node("zero", "logic.set", {"values": {"n": 0}}),
                node("count", "logic.set", {"values": {"n": "{{ vars.n + 1 }}"}}),
                node("more", "logic.if", {"condition": "vars.n < 5"}),
                transform("end", "{{ vars.n }}"),
            ],
            ["start -> zero", "zero -> count", "count -> more", "more.true -> count", "more.false -> end"],
        )
    )
    run_id = start(db, slug)
    run_all(db)
    assert run(db, run_id)["output"] == 5
    assert [s["visit"] for s in steps(db, run_id) if s["node_id"] == "count"] == [1, 2, 3, 4, 5]


def test_too_many_visits_fail_the_step(db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "endless",
            [START, transform("a", 1), node("b", "logic.if", {"condition": "true"}), transform("end", 1)],
            ["start -> a", "a -> b", "b.true -> a", "b.false -> end"],
        )
    )
    run_id = start(db, slug)
    run_all(db)
    ended = run(db, run_id)
    assert (ended["state"], ended["error"]["class"]) == ("failed", "max_visits")
    assert max(s["visit"] for s in steps(db, run_id)) == 1001


def test_a_loop_back_inside_a_parallel_branch_does_not_block_the_meeting(dsn, db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "knot",
            [
                START,
                node("zero", "logic.set", {"values": {"n": 0}}),
                call("try_it"),
                node("count", "logic.set", {"values": {"n": "{{ vars.n + 1 }}"}}),
                node("again", "logic.if", {"condition": "vars.n < 3"}),
                transform("other", 1),
                transform("end", 2),
            ],
            [
                "start -> zero",
                "zero -> try_it",
                "try_it -> count",
                "count -> again",
                "again.true -> try_it",
                "again.false -> end",
                "zero -> other",
                "other -> end",
            ],
        )
    )
    run_id = start(db, slug)
    worker = Worker(dsn)
    for _ in range(3):
        run_all(db)
        assert states(db, run_id)["end"] == "joining"
        worker.end(*worker.begin())
    assert run(db, run_id)["state"] == "completed"
    assert visited(db, run_id).count("try_it") == 3


def test_variables_set_in_parallel_lose_nothing(db, make_workflow, run_all):
    branches = [f"b{n}" for n in range(8)]
    slug = make_workflow(
        document(
            "sum",
            [
                START,
                node("zero", "logic.set", {"values": {"n": 0}}),
                *(node(b, "logic.set", {"values": {"n": "{{ vars.n + 1 }}"}}) for b in branches),
                transform("end", "{{ vars.n }}"),
            ],
            ["start -> zero", *(f"zero -> {b}" for b in branches), *(f"{b} -> end" for b in branches)],
        )
    )
    run_id = start(db, slug)
    run_all(db)
    assert run(db, run_id)["output"] == 8


def test_workers_steps_of_one_transaction_share_queue_rows(db, make_workflow, run_all):
    slug = make_workflow(document("many", [START, call("a")], ["start -> a"]))
    for _ in range(400):
        start(db, slug)
    run_all(db)
    (jobs,) = db.execute("select count(*) from stellwerk_queue.pgqueuer").fetchone()
    assert 8 <= jobs < 100
    assert db.execute("select count(*), count(job_id) from stellwerk.step where state = 'queued'").fetchone() == (
        400,
        400,
    )


def test_no_step_can_stand_twice_on_one_visit(db, make_workflow, run_all):
    slug = make_workflow(document("one", [START], []))
    run_id = start(db, slug)
    run_all(db)
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.execute(
            "insert into stellwerk.step (tenant_id, run_id, node_id, version, type, runs_in) values (1, %s, 'start', 1, 'x', 'sql')",
            (run_id,),
        )
