-- Workflows, their frozen versions, and the compiled plan that the engine reads.

create table stellwerk.workflow (
  tenant_id       bigint      not null references stellwerk.tenant,
  workflow_id     bigint      not null generated always as identity,
  slug            text        not null,
  name            text        not null,
  description     text,
  active_version  integer,
  created_at      timestamptz not null default clock_timestamp(),
  updated_at      timestamptz not null default clock_timestamp(),

  primary key (tenant_id, workflow_id),
  constraint workflow_slug_unique unique (tenant_id, slug),
  constraint workflow_slug_shape check (slug ~ '^[a-z][a-z0-9-]{0,62}$')
);

comment on table stellwerk.workflow is 'The thing with a name; what it does stands in its versions.';
comment on column stellwerk.workflow.tenant_id is 'The tenant that the workflow belongs to.';
comment on column stellwerk.workflow.workflow_id is 'Opaque number of the workflow.';
comment on column stellwerk.workflow.slug is 'Stable name for calls: lower case, digits, hyphens.';
comment on column stellwerk.workflow.name is 'Name for people, from the newest saved document.';
comment on column stellwerk.workflow.description is 'What it is for, from the newest saved document.';
comment on column stellwerk.workflow.active_version is 'The published version that new runs start with; null until the first is published.';
comment on column stellwerk.workflow.created_at is 'When the workflow was first saved.';
comment on column stellwerk.workflow.updated_at is 'When a version was last saved or published.';

create table stellwerk.workflow_version (
  tenant_id     bigint      not null,
  workflow_id   bigint      not null,
  version       integer     not null,
  document      jsonb       not null,
  settings      jsonb       not null default '{}',
  input_schema  jsonb,
  problems      jsonb       not null default '[]',
  saved_at      timestamptz not null default clock_timestamp(),
  saved_by      text        not null,
  published_at  timestamptz,
  published_by  text,

  primary key (tenant_id, workflow_id, version),
  foreign key (tenant_id, workflow_id) references stellwerk.workflow on delete cascade,
  constraint workflow_version_counts_from_one check (version > 0),
  constraint workflow_version_published_by_someone check ((published_at is null) = (published_by is null))
);

create unique index workflow_version_one_draft on stellwerk.workflow_version (tenant_id, workflow_id) where published_at is null;

comment on table stellwerk.workflow_version is 'One document of a workflow: a draft until it is published, unchangeable from then on.';
comment on column stellwerk.workflow_version.tenant_id is 'The tenant that the workflow belongs to.';
comment on column stellwerk.workflow_version.workflow_id is 'The workflow.';
comment on column stellwerk.workflow_version.version is 'Counts from 1 within the workflow.';
comment on column stellwerk.workflow_version.document is 'The workflow document as saved, normalised.';
comment on column stellwerk.workflow_version.settings is 'The document''s settings with defaults filled in.';
comment on column stellwerk.workflow_version.input_schema is 'JSON Schema that a payload must satisfy; null accepts any.';
comment on column stellwerk.workflow_version.problems is 'What the compiler found: array of path, node, code, message, position, hint, severity. Errors forbid publishing.';
comment on column stellwerk.workflow_version.saved_at is 'When the draft was last saved.';
comment on column stellwerk.workflow_version.saved_by is 'Who saved it: an application user or db:<role>.';
comment on column stellwerk.workflow_version.published_at is 'When it was frozen; null for the draft.';
comment on column stellwerk.workflow_version.published_by is 'Who published it.';

alter table stellwerk.workflow add constraint workflow_active_version_exists
  foreign key (tenant_id, workflow_id, active_version) references stellwerk.workflow_version (tenant_id, workflow_id, version)
  deferrable initially deferred;

-- One small row per node, so that a step reads its node and nothing else.
create table stellwerk.plan_node (
  tenant_id     bigint   not null,
  workflow_id   bigint   not null,
  version       integer  not null,
  node_id       text     not null,
  position      integer  not null,
  type          text     not null,
  runs_in       text     not null,
  executable    boolean  not null,
  config        jsonb    not null,
  dynamic       jsonb    not null,
  condition     jsonb,
  cases         jsonb,
  reads         jsonb    not null,
  read_steps    text[]   not null,
  edges         jsonb    not null,
  joins         boolean  not null,
  upstream      jsonb    not null,
  cyclic        boolean  not null,
  loop_node     text,
  max_attempts  integer  not null,
  retry         jsonb    not null,
  timeout       interval,
  on_error      text     not null,
  compensate    text,
  max_visits    integer  not null,
  may_raise     boolean  not null,
  alone         boolean  not null,

  primary key (tenant_id, workflow_id, version, node_id),
  foreign key (tenant_id, workflow_id, version) references stellwerk.workflow_version on delete cascade,
  constraint plan_node_runs_somewhere check (runs_in in ('trigger', 'sql', 'worker', 'wait')),
  constraint plan_node_on_error_known check (on_error in ('fail', 'continue', 'route')),
  constraint plan_node_attempts_positive check (max_attempts between 1 and 1000),
  constraint plan_node_visits_positive check (max_visits > 0)
);

comment on table stellwerk.plan_node is 'The compiled plan: one row per node of a version, everything that the engine needs to run it.';
comment on column stellwerk.plan_node.tenant_id is 'The tenant that the workflow belongs to.';
comment on column stellwerk.plan_node.workflow_id is 'The workflow.';
comment on column stellwerk.plan_node.version is 'The version that was compiled.';
comment on column stellwerk.plan_node.node_id is 'The node''s id in the document.';
comment on column stellwerk.plan_node.position is 'Place in the document, from 0; decides the order where nothing else does.';
comment on column stellwerk.plan_node.type is 'Node type, such as logic.if.';
comment on column stellwerk.plan_node.runs_in is 'Where the node runs: trigger (starts the run), sql, worker or wait.';
comment on column stellwerk.plan_node.executable is 'False for a type that is known but cannot run yet; such a version cannot be published.';
comment on column stellwerk.plan_node.config is 'The node''s settings with defaults; places that hold an expression are null here.';
comment on column stellwerk.plan_node.dynamic is 'Array of { at, path | expr | text }: the places of config that are computed for each step.';
comment on column stellwerk.plan_node.condition is '{ tree, jsonpath } of the node''s condition, for node types that have one.';
comment on column stellwerk.plan_node.cases is 'Array of { port, tree, jsonpath } of a switch, first match wins.';
comment on column stellwerk.plan_node.reads is 'Which parts of the context the expressions see: trigger, steps, vars, item, run, now.';
comment on column stellwerk.plan_node.read_steps is 'The nodes whose output or error the expressions read.';
comment on column stellwerk.plan_node.edges is '{ port: [node, …] }: where tokens go from here.';
comment on column stellwerk.plan_node.joins is 'True when several forward edges meet here, so that a token may have to wait for others.';
comment on column stellwerk.plan_node.upstream is '{ trigger node: [node, …] }: nodes from which this one can be reached going forward, within its scope.';
comment on column stellwerk.plan_node.cyclic is 'True when the node lies on a cycle and can be visited more than once in a scope.';
comment on column stellwerk.plan_node.loop_node is 'The innermost loop around the node; null outside loops.';
comment on column stellwerk.plan_node.max_attempts is 'How many attempts may end in an error before on_error decides.';
comment on column stellwerk.plan_node.retry is '{ interval, backoff, max_interval, jitter }: the pause between attempts.';
comment on column stellwerk.plan_node.timeout is 'Longest duration of one attempt; null for none.';
comment on column stellwerk.plan_node.on_error is 'After the last attempt: fail the run, continue with the error as output, or route by the port error.';
comment on column stellwerk.plan_node.compensate is 'The node that undoes this one; null for none.';
comment on column stellwerk.plan_node.max_visits is 'How often the node may run within one scope before the step fails.';
comment on column stellwerk.plan_node.may_raise is 'True when running it can raise, so that it needs a subtransaction of its own.';
comment on column stellwerk.plan_node.alone is 'True when it touches other people''s tables: such runs advance one per transaction.';

-- Tables and functions of the application that workflows may use. The search_path is the one that
-- the customer's own triggers expect; with an empty one they break.
create table stellwerk.registered_table (
  tenant_id      bigint      not null references stellwerk.tenant,
  slug           text        not null,
  target         text        not null,
  tenant_column  text,
  search_path    text        not null,
  registered_at  timestamptz not null default clock_timestamp(),
  registered_by  text        not null,

  primary key (tenant_id, slug)
);

comment on table stellwerk.registered_table is 'Tables of the application that record.* nodes may read and write.';
comment on column stellwerk.registered_table.tenant_id is 'The tenant that may use the table.';
comment on column stellwerk.registered_table.slug is 'The name that workflows use.';
comment on column stellwerk.registered_table.target is 'Schema-qualified, quoted name of the table.';
comment on column stellwerk.registered_table.tenant_column is 'Column that must equal the tenant''s number in every statement; null when the table is the tenant''s alone.';
comment on column stellwerk.registered_table.search_path is 'The search_path under which statements on the table run.';
comment on column stellwerk.registered_table.registered_at is 'When the table was registered.';
comment on column stellwerk.registered_table.registered_by is 'Who registered it.';

create table stellwerk.registered_function (
  tenant_id      bigint      not null references stellwerk.tenant,
  name           text        not null,
  target         text        not null,
  search_path    text        not null,
  registered_at  timestamptz not null default clock_timestamp(),
  registered_by  text        not null,

  primary key (tenant_id, name)
);

comment on table stellwerk.registered_function is 'SQL functions (input jsonb, context jsonb) returning jsonb that sql.function nodes may call.';
comment on column stellwerk.registered_function.tenant_id is 'The tenant that may use the function.';
comment on column stellwerk.registered_function.name is 'The name that workflows use.';
comment on column stellwerk.registered_function.target is 'Schema-qualified, quoted name of the function, without arguments.';
comment on column stellwerk.registered_function.search_path is 'The search_path under which the function is called.';
comment on column stellwerk.registered_function.registered_at is 'When the function was registered.';
comment on column stellwerk.registered_function.registered_by is 'Who registered it.';
