"""Finding executors, the ones that only log, files, and the documentation's example."""

from __future__ import annotations

import logging
import re
import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import stellwerk.executors as executors
from stellwerk.definition.catalog import NODE_TYPES
from stellwerk.executors import Call, Executor, ExecutorConfig, ExecutorError, find_executors, load_executor
from stellwerk.executors.esign import EsignRequest
from stellwerk.executors.fonio import FonioCall
from stellwerk.worker.effects import Gate
from stellwerk.worker.exports import as_csv, cell

DOCS = Path(__file__).parents[2] / "docs"


class ShoutConfig(ExecutorConfig):
    text: str


class Shout(Executor[ShoutConfig, dict[str, str]]):
    """A stranger's executor."""

    type = "shout.text"

    def execute(self, call: Call[ShoutConfig]) -> dict[str, str]:
        return {"text": call.config.text.upper()}


class Lazy(Executor[ShoutConfig, str]):
    type = "lazy.one"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend that packages with these entry points are installed beside our own."""

    def install(**targets: Any) -> None:
        module = types.ModuleType("strangers")
        found = []
        for name, target in targets.items():
            node_type = name.replace("__", ".")
            if isinstance(target, str):
                found.append(EntryPoint(node_type, target, executors.GROUP))
            else:
                setattr(module, name, target)
                found.append(EntryPoint(node_type, f"strangers:{name}", executors.GROUP))
        monkeypatch.setitem(sys.modules, "strangers", module)
        ours = [
            EntryPoint("action.fonio_call", "stellwerk.executors.fonio:FonioCall", executors.GROUP),
            EntryPoint("http.request", "stellwerk.executors.http:HttpRequest", executors.GROUP),
        ]
        monkeypatch.setattr(executors, "entry_points", lambda group: ours + found)

    return install


def test_our_own_executors_are_found_like_any_other() -> None:
    found = find_executors()
    assert {"http.request", "action.fonio_call", "action.esign_request"} <= found.keys()
    assert all(executor.type == name for name, executor in found.items())


def test_every_executable_worker_type_has_an_executor() -> None:
    wanted = {node.type for node in NODE_TYPES.values() if node.runs_in == "worker" and node.executable}
    assert wanted == {name for name in find_executors() if name in NODE_TYPES}


def test_a_strangers_executor_is_found(installed: Any) -> None:
    installed(shout__text=Shout)
    found = find_executors()
    assert isinstance(found["shout.text"], Shout)
    assert found["shout.text"].config is ShoutConfig


@pytest.mark.parametrize(
    ("name", "target", "said"),
    [
        ("shout__text", "nowhere.at.all:Thing", "ModuleNotFoundError"),
        ("shout__text", "strangers:Missing", "AttributeError"),
        ("shout__text", object, "not a subclass"),
        ("other__name", Shout, "its type is 'shout.text'"),
        ("lazy__one", Lazy, "no method execute"),
    ],
)
def test_a_broken_executor_is_named_in_the_log_and_the_others_go_on(
    name: str, target: Any, said: str, installed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    installed(**{name: target})
    assert set(find_executors()) == {"action.fonio_call", "http.request"}
    assert said in caplog.text


def test_a_second_executor_of_a_type_is_left_out(installed: Any, caplog: pytest.LogCaptureFixture) -> None:
    class Impostor(Executor[ShoutConfig, str]):
        type = "http.request"

        async def execute(self, call: Call[ShoutConfig]) -> str:
            return "mine"

    installed(http__request=Impostor)
    found = find_executors()
    assert not isinstance(found["http.request"], Impostor)
    assert "another one has the type http.request" in caplog.text


async def test_a_phone_call_is_logged_and_passes_the_context_on(call_of: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    executor = FonioCall()
    assert await executor.execute(call_of(executor, phone=491701234, context={"name": "Ada"})) == {"name": "Ada"}
    assert "Fonio-Anruf würde ausgeführt" in caplog.text
    assert "run 7 step 8 (node)" in caplog.text
    assert "491701234" not in caplog.text


async def test_a_phone_call_with_an_address_is_ordered_there(httpserver: Any, call_of: Any) -> None:
    httpserver.expect_request("/calls", method="POST").respond_with_json({"call_id": "c1"})
    executor = FonioCall()
    call = call_of(executor, phone="+49", context={"name": "Ada"}, url=httpserver.url_for("/calls"))
    assert await executor.execute(call) == {"name": "Ada", "call_id": "c1"}
    request, _ = httpserver.log[0]
    assert request.json == {"phone": "+49", "context": {"name": "Ada"}}
    assert request.headers["Idempotency-Key"] == "7:8:1"


async def test_a_signature_request_answers_the_same_envelope_each_time(call_of: Any) -> None:
    executor = EsignRequest()
    call = call_of(executor, signer="ada@example.com", context={"case": 1})
    first, second = await executor.execute(call), await executor.execute(call)
    assert first == second
    assert first["case"] == 1
    assert re.fullmatch(r"env_[0-9a-f]{24}", first["envelope_id"])


@pytest.mark.parametrize("executor", [FonioCall(), EsignRequest()])
async def test_a_credential_is_not_silently_ignored(executor: Any, call_of: Any) -> None:
    with pytest.raises(ExecutorError, match="credentials cannot be used yet"):
        await executor.execute(call_of(executor, credential="mine"))


async def test_a_file_appears_whole_and_replaces_an_older_one(gate: Gate, tmp_path: Path) -> None:
    effects = gate.for_step("1:2:1")
    folder = tmp_path / "drop" / "here"
    path = await effects.write_file(folder, "case.csv", b"one")
    assert path.read_bytes() == b"one"
    await effects.write_file(folder, "case.csv", b"two")
    assert [file.name for file in folder.iterdir()] == ["case.csv"]
    assert path.read_bytes() == b"two"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "a\0b", "x" * 300])
async def test_a_file_name_is_only_a_name(name: str, gate: Gate, tmp_path: Path) -> None:
    with pytest.raises(ExecutorError) as caught:
        await gate.for_step("1:2:1").write_file(tmp_path, name, b"")
    assert (caught.value.error_class, caught.value.retryable) == ("invalid_file_name", False)


async def test_a_folder_that_cannot_be_made_is_told(gate: Gate, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExecutorError) as caught:
        await gate.for_step("1:2:1").write_file(tmp_path / "file" / "folder", "x", b"")
    assert (caught.value.error_class, caught.value.retryable) == ("file", True)


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_is_a_formula(begin: str) -> None:
    assert cell(begin + "HYPERLINK(1)") == "'" + begin + "HYPERLINK(1)"


def test_cells_are_quoted_and_numbers_stay_numbers() -> None:
    text = as_csv(["a", "b"], [["-5", 'x,"y"'], ["-5.25", "line\nbreak"], [None, "nul\0"]])
    assert text == b'a,b\r\n-5,"x,""y"""\r\n-5.25,"line\nbreak"\r\n,nul\r\n'


async def test_the_example_in_the_documentation_runs(httpserver: Any, call_of: Any) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "executors.md").read_text(), re.DOTALL)
    module = types.ModuleType("example")
    sys.modules["example"] = module
    exec(blocks[0], module.__dict__)  # noqa: S102 (our own page)
    entry = EntryPoint("weather.now", "example:WeatherNow", executors.GROUP)
    executor = load_executor(entry)
    assert executor is not None
    httpserver.expect_request("/now", query_string="city=Trieste").respond_with_json({"celsius": 14.5})
    executor.service = httpserver.url_for("/now")  # type: ignore[attr-defined]
    answer = await executor.execute(call_of(executor, city="Trieste"))
    assert answer.model_dump() == {"celsius": 14.5}


def test_the_documentation_lists_every_executor() -> None:
    rows = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| (.*?) \|", (DOCS / "executors.md").read_text(), re.MULTILINE)
    ours = {name: executor for name, executor in find_executors().items() if name in NODE_TYPES}
    assert dict(rows) == {name: (executor.__doc__ or "").splitlines()[0] for name, executor in ours.items()}
