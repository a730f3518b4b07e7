"""`stellwerk workflow …`: definitions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from stellwerk import json_text
from stellwerk.cli.connection import engine
from stellwerk.cli.differences import differences, tell_proposal, tell_verdicts
from stellwerk.cli.output import JSON, listing, one_line_progress, say, to_json
from stellwerk.errors import StellwerkError, UnknownWorkflow, UsageError

app = typer.Typer(help="Check, save, publish and read workflow documents.", no_args_is_help=True, rich_markup_mode=None)

SLUG = typer.Argument(help="The workflow.")
VERSION = typer.Option(None, "--version", help="The version; without it the active one, else the draft.", min=1)


@dataclass(frozen=True)
class Checked:
    """A file and what the compiler says about it."""

    path: Path
    document: Any
    plan: Any
    problems: list[dict[str, Any]]

    @property
    def wrong(self) -> bool:
        return any(problem["severity"] == "error" for problem in self.problems)


@app.command()
def validate(
    files: list[Path] = typer.Argument(help="Workflow documents.", metavar="FILE …"),
    as_json: bool = JSON,
) -> None:
    """Check documents without a database and name every problem."""
    checked = [_check(path) for path in files]
    _tell(checked, as_json)
    if any(file.wrong for file in checked):
        raise typer.Exit(1)
    if not as_json:
        say(f"{len(checked)} of {len(checked)} documents are in order.")


@app.command()
def apply(
    places: list[Path] = typer.Argument(help="Workflow documents, or folders of them.", metavar="FILE|DIR …"),
    publish: bool = typer.Option(False, "--publish", help="Publish each of them as well."),
    as_json: bool = JSON,
) -> None:
    """Save documents as drafts: all of them, or none if one has errors."""
    files = [file for place in places for file in _documents(place)]
    with one_line_progress() as report:
        checked = []
        for number, path in enumerate(files, 1):
            if len(files) > 1:
                report(f"checking {number} of {len(files)}: {path.name}")
            checked.append(_check(path))
    if any(file.wrong for file in checked):
        _tell(checked, as_json)
        wrong = sum(file.wrong for file in checked)
        raise StellwerkError(
            f"{wrong} of {len(checked)} documents {'has' if wrong == 1 else 'have'} errors, and nothing was saved",
            hint="Mend what is listed and apply again.",
        )
    saved = []
    with engine() as stellwerk, stellwerk.connection.transaction():
        for file in checked:
            slug, version = stellwerk.save_workflow(file.document, file.plan, file.problems)
            if publish:
                version = stellwerk.publish_workflow(slug, version)
            saved.append({"slug": slug, "version": version, "published": publish, "problems": file.problems})
    if as_json:
        say(to_json(saved))
        return
    _tell(checked, as_json)
    for row in saved:
        say(f"{row['slug']} version {row['version']} {'published' if publish else 'saved as draft'}")


@app.command("list")
def list_(as_json: bool = JSON) -> None:
    """List the workflows."""
    with engine() as stellwerk:
        rows = stellwerk.rows(
            "select w.slug, w.name, w.active_version, d.version as draft, w.updated_at from stellwerk.workflow w"
            " left join stellwerk.workflow_version d on d.tenant_id = w.tenant_id and d.workflow_id = w.workflow_id"
            " and d.published_at is null"
            " where w.tenant_id = stellwerk.current_tenant_id() order by w.slug"
        )
    listing(rows, as_json=as_json, empty="There is no workflow yet: `stellwerk workflow apply FILE` saves one.")


@app.command()
def show(slug: str = SLUG, version: int | None = VERSION, as_json: bool = JSON) -> None:
    """Show a version's nodes and edges."""
    row = _version(slug, version)
    if as_json:
        say(to_json(row))
        return
    state = "active" if row["active"] else "draft" if row["published_at"] is None else "published"
    document = row["document"]
    say(f"{slug} version {row['version']} ({state}): {document.get('name') or slug}")
    if document.get("description"):
        say(document["description"])
    say()
    edges = document.get("edges", [])
    nodes = [
        {
            "node": node["id"],
            "type": node["type"],
            "then": ", ".join(
                (f"{edge['port']}: " if edge.get("port", "next") != "next" else "") + edge["to"]
                for edge in edges
                if edge["from"] == node["id"]
            ),
        }
        for node in document.get("nodes", [])
    ]
    listing(nodes, as_json=False, empty="It has no nodes.")


@app.command()
def publish(slug: str = SLUG, version: int | None = VERSION) -> None:
    """Make a version the one that new runs use; without --version the draft."""
    with engine() as stellwerk:
        say(f"{slug} version {stellwerk.publish_workflow(slug, version)} is published.")


@app.command()
def rollback(slug: str = SLUG, version: int = typer.Argument(help="The version to go back to.", min=1)) -> None:
    """Publish an earlier version again."""
    with engine() as stellwerk:
        now = stellwerk.rollback_workflow(slug, version)
    say(f"{slug} does what version {version} did, as version {now}." if now != version else f"{slug} version {now}.")


@app.command()
def diff(
    slug: str = SLUG,
    a: int = typer.Argument(help="The one version.", metavar="A", min=1),
    b: int = typer.Argument(help="The other version; a draft is one too.", metavar="B", min=1),
    as_json: bool = JSON,
) -> None:
    """Say what differs from one version to another."""
    with engine() as stellwerk:
        rows = stellwerk.diff_versions(slug, a, b)
    if as_json:
        say(to_json(rows))
        return
    if not rows:
        say(f"{slug} versions {a} and {b} mean the same.")
        return
    for place, lines in differences(rows):
        say(place)
        for line in lines:
            say(f"  {line}")


@app.command("migrate-runs")
def migrate_runs(
    slug: str = SLUG,
    from_: int = typer.Argument(help="The version that the runs are on.", metavar="FROM", min=1),
    to: int = typer.Argument(help="The published version to move them to.", metavar="TO", min=1),
    map_: list[str] = typer.Option([], "--map", help="Which node is which, old=new; old= for none.", metavar="OLD=NEW"),
    apply_: bool = typer.Option(False, "--apply", help="Really move them; without it only say what would happen."),
    batch: int = typer.Option(1000, "--batch", help="Runs per transaction.", min=1),
    as_json: bool = JSON,
) -> None:
    """Move live runs from one version to another."""
    node_map = dict(_pair(text) for text in map_)
    verdicts: dict[int, dict[str, Any]] = {}
    migration = None
    with engine() as stellwerk, one_line_progress() as report:
        proposal = stellwerk.propose_node_map(slug, from_, to, node_map)
        # One transaction per batch; at the end once more for those that something else moved at that moment.
        while True:
            part = stellwerk.migrate_runs(
                slug, from_, to, node_map, dry_run=not apply_, batch=batch if apply_ else None, continue_with=migration
            )
            verdicts.update((row["run_id"], row) for row in part)
            moved = [row for row in part if row["migration_id"] is not None]
            if not moved:
                break
            migration = moved[-1]["migration_id"]
            report(f"{sum(row['migration_id'] is not None for row in verdicts.values())} runs moved")
    rows = [verdicts[run_id] for run_id in sorted(verdicts)]
    if as_json:
        say(to_json(rows))
        return
    tell_proposal(proposal)
    tell_verdicts(rows, done="moved" if apply_ else None, empty=f"No live run of {slug} is on version {from_}.")
    if not apply_ and any(row["verdict"] == "ok" for row in rows):
        say("Nothing was changed: add --apply to move them.")
    elif migration is not None:
        say(f"Undo, while they have not moved on: stellwerk workflow undo-migration {migration} --apply")


@app.command("undo-migration")
def undo_migration(
    migration: int = typer.Argument(help="The number that migrate-runs gave.", metavar="ID", min=1),
    apply_: bool = typer.Option(False, "--apply", help="Really move them; without it only say what would happen."),
    batch: int = typer.Option(1000, "--batch", help="Runs per transaction.", min=1),
    as_json: bool = JSON,
) -> None:
    """Move migrated runs back, as long as they have not gone on."""
    verdicts: dict[int, dict[str, Any]] = {}
    with engine() as stellwerk:
        while True:
            part = stellwerk.undo_migration(migration, dry_run=not apply_, batch=batch if apply_ else None)
            verdicts.update((row["run_id"], row) for row in part)
            if not apply_ or all(row["verdict"] != "ok" for row in part):
                break
    rows = [verdicts[run_id] for run_id in sorted(verdicts)]
    if as_json:
        say(to_json(rows))
        return
    tell_verdicts(rows, done="moved back" if apply_ else None, empty="All runs of this migration are back already.")
    if not apply_ and any(row["verdict"] == "ok" for row in rows):
        say("Nothing was changed: add --apply to move them back.")


@app.command()
def export(slug: str = SLUG, version: int | None = VERSION) -> None:
    """Print a version's document, as `apply` takes it."""
    say(to_json(_version(slug, version)["document"]))


def _pair(text: str) -> tuple[str, str | None]:
    old, sign, new = text.partition("=")
    if not old or not sign:
        raise UsageError(f"{text!r} is no pair of nodes", hint="Write --map old=new, or --map old= for none.")
    return old, new or None


def _documents(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    files = sorted(place.glob("*.json"))
    if not files:
        raise UsageError(f"there is no .json file in {place}")
    return files


def _check(path: Path) -> Checked:
    from stellwerk.definition.compile import compile_workflow  # here, because the SQL parser takes a while to load

    try:
        source = path.read_bytes()
    except OSError as error:
        raise StellwerkError(f"the file {path} cannot be read: {error.strerror}") from None
    try:
        document = json_text.decode(source, f"file {path.name}")
    except StellwerkError as error:
        problem = {"path": "", "node": None, "code": "not_json", "message": error.message, "position": None}
        return Checked(path, None, None, [{**problem, "hint": error.hint, "severity": "error"}])
    compiled = compile_workflow(document)
    return Checked(path, compiled.document, compiled.plan, [problem.as_json() for problem in compiled.problems])


def _tell(checked: list[Checked], as_json: bool) -> None:
    if as_json:
        say(to_json([{"file": str(file.path), "problems": file.problems} for file in checked]))
        return
    for file in checked:
        for problem in file.problems:
            place = problem["path"] or "document"
            at = f" (character {problem['position']})" if problem["position"] is not None else ""
            kind = "" if problem["severity"] == "error" else f"{problem['severity']}: "
            say(f"{file.path}: {place}: {kind}{problem['message']}{at}")
            if problem["hint"]:
                say(f"    {problem['hint']}")


def _version(slug: str, version: int | None) -> dict[str, Any]:
    with engine() as stellwerk:
        rows = stellwerk.rows(
            "select w.slug, v.version, v.version = w.active_version as active, v.saved_at, v.saved_by, v.published_at,"
            " v.published_by, v.problems, v.document from stellwerk.workflow w"
            " join stellwerk.workflow_version v using (tenant_id, workflow_id)"
            " where w.tenant_id = stellwerk.current_tenant_id() and w.slug = %s"
            " and (%s::int is null or v.version = %s)"
            " order by v.version = w.active_version desc nulls last, v.version desc limit 1",
            [slug, version, version],
        )
    if not rows:
        what = f"no version {version} of the workflow {slug!r}" if version else f"no workflow {slug!r}"
        raise UnknownWorkflow(f"there is {what}", hint="`stellwerk workflow list` shows what there is.")
    return rows[0]
