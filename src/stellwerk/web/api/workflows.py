"""`/api/workflows`: definitions, their versions, and moving runs from one to another."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from litestar import Response
from pydantic import Field

from stellwerk.errors import UnknownWorkflow, WrongState
from stellwerk.web import cursors, exchange
from stellwerk.web.api import definitions
from stellwerk.web.api.definitions import Document, DocumentProblem, Workflow
from stellwerk.web.desk import Desk
from stellwerk.web.exchange import Anything, Asked, Given, Id, Paged, Refused, Shown, Version, answer

LIST = """
  select w.slug, w.name, w.description, w.active_version, d.version as draft, w.created_at, w.updated_at
    from stellwerk.workflow w
    left join stellwerk.workflow_version d
      on d.tenant_id = w.tenant_id and d.workflow_id = w.workflow_id and d.published_at is null
   where w.tenant_id = (select stellwerk.current_tenant_id()) and (%(after)s::text is null or w.slug > %(after)s)
   order by w.slug
   limit %(limit)s
"""
VERSIONS = """
  select d.version, d.version is not distinct from w.active_version as active, d.saved_at, d.saved_by,
         d.published_at, d.published_by,
         jsonb_array_length(d.problems) as problems
    from stellwerk.workflow w
    join stellwerk.workflow_version d on d.tenant_id = w.tenant_id and d.workflow_id = w.workflow_id
   where w.tenant_id = (select stellwerk.current_tenant_id()) and w.slug = %(slug)s
     and (%(before)s::int is null or d.version < %(before)s)
   order by d.version desc
   limit %(limit)s
"""


class WorkflowSummary(Shown):
    """A workflow in a list."""

    slug: str
    name: str
    description: str | None
    active_version: int | None = Field(description="What new runs use.")
    draft: int | None = Field(description="The version that is being worked on, if there is one.")
    created_at: datetime.datetime
    updated_at: datetime.datetime


class VersionSummary(Shown):
    """A version in a list."""

    version: int
    active: bool
    saved_at: datetime.datetime
    saved_by: str
    published_at: datetime.datetime | None
    published_by: str | None
    problems: int = Field(description="How many the compiler found; a published version has warnings only.")


class Published(Shown):
    """What new runs use from now on."""

    slug: str
    version: int


class Difference(Shown):
    """One thing that differs."""

    kind: str
    node_id: str | None
    field: str | None
    before: Anything
    after: Anything
    was: str | None = Field(description="The node's id in the first version, where it has another.")


class Differences(Shown):
    """What differs from one version to another."""

    items: list[Difference]


class Verdict(Shown):
    """What the compiler says."""

    publishable: bool
    problems: list[DocumentProblem]


class RunVerdict(Shown):
    """What becomes of one run."""

    run_id: Id
    verdict: Literal["ok", "needs_map", "blocked"] | str
    reason: str | None
    mapping: Anything
    migration_id: Id | None


class MappedNode(Shown):
    """Which node is taken for which."""

    node_id: str
    type: str
    to_node: str | None
    how: str


class Migration(Shown):
    """What was moved, or would be."""

    dry_run: bool
    nodes: list[MappedNode]
    runs: list[RunVerdict]


class Saving(Asked):
    """How a document is saved."""

    incomplete: bool = Field(default=False, description="Keep a draft that has errors; it cannot be published.")


class WhichVersion(Asked):
    """Which version."""

    version: Version | None = Field(default=None, description="Another version than the newest.")


class Publication(Given):
    """Which draft is meant."""

    version: Version | None = Field(default=None, description="409 or 412 unless the draft is this version.")


class Return(Given):
    """Where to go back to."""

    version: Version


class Comparison(Asked):
    """Which versions."""

    from_: Version = Field(alias="from")
    to: Version


class Move(Given):
    """Which runs are moved where."""

    from_version: Version
    to_version: Version
    node_map: dict[str, str | None] = Field(default_factory=dict, description="Old node to new node; null for none.")
    dry_run: bool = Field(default=True, description="Only say what would become of each run.")
    limit: Annotated[int, Field(ge=1, le=1000, description="How many runs at most; ask again for the next ones.")] = 200


WorkflowList = exchange.listed(WorkflowSummary, "WorkflowList")
VersionList = exchange.listed(VersionSummary, "VersionList")


@exchange.get("/api/workflows", "List workflows", WorkflowList, asks=Paged)
def list_workflows(desk: Desk, asked: Paged) -> Response[bytes]:
    """In the order of their slugs."""
    key = cursors.read(asked.cursor, str)
    rows = desk.rows(LIST, {"after": key and key[0], "limit": asked.limit + 1})  # type: ignore[arg-type]
    return exchange.paged(WorkflowList, cursors.page(rows, asked.limit, "slug"))


@exchange.post(
    "/api/workflows",
    "Create a workflow",
    Workflow,
    needs="design",
    takes=Document,
    asks=Saving,
    status=201,
    refuses=(409,),
    example=definitions.EXAMPLE,
)
def create_workflow(desk: Desk, given: Document, asked: Saving) -> Response[bytes]:
    """Compiles the document and saves it as the draft of a new workflow; nothing is saved if it has errors."""
    slug = given.root.get("slug")
    if not isinstance(slug, str) or slug in definitions.RESERVED or "\0" in slug:
        said = "is needed, a text" if not isinstance(slug, str) else "cannot be used: the API has this word itself"
        raise Refused("the document needs another slug", [{"path": "slug", "message": said}])

    def first(present: dict[str, Any] | None) -> dict[str, Any]:
        if present is not None:
            raise WrongState(f"there is a workflow {slug} already", hint=f"PUT /api/workflows/{slug} changes it.")
        return given.root

    row = definitions.saved(desk, slug, first, incomplete=asked.incomplete)
    answered = definitions.shown(row, status=201)
    answered.headers["location"] = f"/api/workflows/{slug}"
    return answered


@exchange.get("/api/workflows/{slug:str}", "Read a workflow", Workflow, asks=WhichVersion)
def get_workflow(desk: Desk, slug: str, asked: WhichVersion) -> Response[bytes]:
    """The newest document, draft or not, or the version asked for. The ETag is for If-Match of a change."""
    with desk.engine() as engine:
        return definitions.shown(definitions.workflow_of(engine, slug, asked.version))


@exchange.put(
    "/api/workflows/{slug:str}",
    "Replace a document",
    Workflow,
    needs="design",
    takes=Document,
    asks=Saving,
    headers=("If-Match",),
    refuses=(412, 428),
    example=definitions.EXAMPLE,
)
def replace_workflow(desk: Desk, slug: str, given: Document, asked: Saving) -> Response[bytes]:
    """Compiles the document and saves it as the draft; published versions stay as they are."""
    tag = definitions.expected_tag(desk, needed=True)

    def next_(present: dict[str, Any] | None) -> dict[str, Any]:
        if present is None:
            raise UnknownWorkflow(f"there is no workflow {slug!r}", hint="POST /api/workflows makes one.")
        if given.root.get("slug") != slug:
            raise Refused("the slug is another", [{"path": "slug", "message": f"must be {slug!r} as in the address"}])
        return given.root

    return definitions.shown(definitions.saved(desk, slug, next_, tag=tag, incomplete=asked.incomplete))


@exchange.delete(
    "/api/workflows/{slug:str}", "Delete a workflow", needs="design", headers=("If-Match",), refuses=(409, 412)
)
def delete_workflow(desk: Desk, slug: str) -> None:
    """Only one that was never published: versions that runs have used are kept."""
    tag = definitions.expected_tag(desk, needed=False)
    with desk.engine() as engine:
        engine.claim_workflow(slug, tag)
        engine.delete_workflow(slug)


@exchange.post(
    "/api/workflows/{slug:str}/publish",
    "Publish the draft",
    Published,
    needs="design",
    takes=Publication,
    takes_needed=False,
    status=200,
    headers=("If-Match",),
    refuses=(409, 412),
    example={"version": 2},
)
def publish_workflow(desk: Desk, slug: str, given: Publication | None) -> Response[bytes]:
    """New runs use the draft from now on; its row triggers and schedules are set."""
    tag = definitions.expected_tag(desk, needed=False)
    with desk.engine() as engine:
        engine.claim_workflow(slug, tag)
        version = engine.publish_workflow(slug, given.version if given else None)
    return answer(Published, {"slug": slug, "version": version})


@exchange.post(
    "/api/workflows/{slug:str}/rollback",
    "Roll back",
    Published,
    needs="design",
    takes=Return,
    status=200,
    refuses=(409, 412),
    example={"version": 1},
)
def rollback_workflow(desk: Desk, slug: str, given: Return) -> Response[bytes]:
    """Publishes the document of an earlier version again, as a new version."""
    with desk.engine() as engine:
        version = engine.rollback_workflow(slug, given.version)
    return answer(Published, {"slug": slug, "version": version})


@exchange.get("/api/workflows/{slug:str}/versions", "List versions", VersionList, asks=Paged)
def list_versions(desk: Desk, slug: str, asked: Paged) -> Response[bytes]:
    """The newest first."""
    key = cursors.read(asked.cursor, int)
    with desk.engine() as engine:
        definitions.workflow_of(engine, slug)
        rows = engine.rows(VERSIONS, {"slug": slug, "before": key and key[0], "limit": asked.limit + 1})  # type: ignore[arg-type]
    return exchange.paged(VersionList, cursors.page(rows, asked.limit, "version"))


@exchange.get("/api/workflows/{slug:str}/diff", "Compare versions", Differences, asks=Comparison, refuses=(412,))
def diff_versions(desk: Desk, slug: str, asked: Comparison) -> Response[bytes]:
    """What differs from one version to another, by nodes and fields; a draft is a version too."""
    with desk.engine() as engine:
        return answer(Differences, {"items": engine.diff_versions(slug, asked.from_, asked.to)})


@exchange.post(
    "/api/workflows/{slug:str}/validate",
    "Check a document",
    Verdict,
    needs="design",
    takes=Document,
    takes_needed=False,
    status=200,
    example=definitions.EXAMPLE,
)
def validate_workflow(desk: Desk, slug: str, given: Document | None) -> Response[bytes]:
    """All of its problems at once; nothing is saved. Without a body, the newest document is checked again."""
    from stellwerk.definition.compile import compile_workflow

    if given is None:
        with desk.engine() as engine:
            document = definitions.workflow_of(engine, slug)["document"]
    else:
        document = given.root
    compiled = compile_workflow(document)
    problems = [problem.as_json() for problem in compiled.problems]
    return answer(Verdict, {"publishable": compiled.is_publishable, "problems": problems})


@exchange.post(
    "/api/workflows/{slug:str}/migrate-runs",
    "Move runs to another version",
    Migration,
    needs="operate",
    takes=Move,
    status=200,
    refuses=(409, 412),
    example={"from_version": 1, "to_version": 2, "node_map": {"greet": "welcome"}},
)
def migrate_runs(desk: Desk, slug: str, given: Move) -> Response[bytes]:
    """Says for each live run of a version what becomes of it, and with `dry_run: false` moves those that can be."""
    with desk.engine() as engine:
        nodes = engine.propose_node_map(slug, given.from_version, given.to_version, given.node_map)
        runs = engine.migrate_runs(
            slug, given.from_version, given.to_version, given.node_map, dry_run=given.dry_run, batch=given.limit
        )
    return answer(Migration, {"dry_run": given.dry_run, "nodes": nodes, "runs": runs})


router = exchange.router(
    list_workflows,
    create_workflow,
    get_workflow,
    replace_workflow,
    delete_workflow,
    publish_workflow,
    rollback_workflow,
    list_versions,
    diff_versions,
    validate_workflow,
    migrate_runs,
)
