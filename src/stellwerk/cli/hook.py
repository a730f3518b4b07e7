"""`stellwerk hook …` and `stellwerk emit`: who may deliver webhooks, what came in, and events of one's own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from stellwerk.cli.connection import engine
from stellwerk.cli.output import JSON, listing, say, to_json
from stellwerk.cli.run import read_json
from stellwerk.engine import Engine
from stellwerk.errors import StellwerkError, UnknownThing, UsageError
from stellwerk.integrations import sealing, signatures
from stellwerk.settings import Settings

app = typer.Typer(
    help="Set up who may deliver webhooks, and look at what came in.", no_args_is_help=True, rich_markup_mode=None
)

SOURCE = typer.Argument(help="Name of the source, the last part of its address.")
PLACE = "header:NAME, body:a.b, or value:NAME for a fixed word"


@app.command("set")
def set_(
    source: str = SOURCE,
    scheme: str = typer.Option(..., "--scheme", help="hmac, standard (Standard Webhooks, Svix, Resend), slack, token."),
    secret: str | None = typer.Option(None, "--secret", help="@FILE, or @- for standard input; never on the line."),
    generate: bool = typer.Option(False, "--generate", help="Make a secret up, and print it once."),
    keep_former: bool = typer.Option(
        False, "--keep-former", help="Let the secret so far stay good beside the new one."
    ),
    kind: str = typer.Option("webhook", "--kind", help="webhook, or email for trigger.email_inbound."),
    event: str | None = typer.Option(None, "--event", help=f"Where the event's name stands: {PLACE}."),
    correlation: str | None = typer.Option(
        None, "--correlation", help=f"Where a signal's correlation stands: {PLACE}."
    ),
    key: str | None = typer.Option(None, "--key", help=f"Where the delivery's number stands: {PLACE}; or none."),
    signal: list[str] = typer.Option([], "--signal", help="EVENT=SIGNAL: the signal that an event sends; * is any."),
    emits: list[str] = typer.Option([], "--emit", help="EVENT=NAME: the internal event that it emits; * is any."),
    signature_header: str | None = typer.Option(None, "--signature-header", help="hmac, token: header of the proof."),
    timestamp_header: str | None = typer.Option(None, "--timestamp-header", help="hmac: header of the timestamp."),
    disable: bool = typer.Option(False, "--disable", help="Refuse every delivery until it is set again without this."),
    as_json: bool = JSON,
) -> None:
    """Set up a source, or replace its settings; without --secret or --generate the secret stays as it is."""
    if scheme not in signatures.SCHEMES:
        raise UsageError(f"{scheme!r} is no signature scheme", hint=f"There are {', '.join(signatures.SCHEMES)}.")
    if secret is not None and generate:
        raise UsageError("--secret and --generate exclude each other")
    given = {
        "kind": kind,
        "event_at": event,
        "correlation_at": correlation,
        "key_at": key,
        "signature_header": signature_header,
        "timestamp_header": timestamp_header,
        "signals": _pairs("--signal", signal),
        "emits": _pairs("--emit", emits),
        "enabled": not disable,
    }
    plain = signatures.new_secret(scheme) if generate else None if secret is None else _read_secret(secret)
    if plain is not None and (fault := signatures.fault_of(scheme, plain)) is not None:
        raise UsageError(fault)
    settings = Settings.from_environment()
    with engine() as stellwerk:
        sealed = None
        if plain is not None:
            tenant = int(stellwerk.value("select stellwerk.current_tenant_id()"))
            sealed = [sealing.Seals.from_settings(settings).seal(sealing.hook_purpose(tenant, source), plain)]
            if keep_former:
                sealed += _secrets_of(stellwerk, source)[:1]
        stellwerk.set_webhook_source(
            source, scheme, sealed, {name: value for name, value in given.items() if value is not None}
        )
        ready = bool(_secrets_of(stellwerk, source))
    address = f"{settings.base_url}/hooks/{settings.tenant}/{source}"
    if as_json:
        say(to_json({"source": source, "address": address, **({"secret": plain} if generate else {})}))
        return
    say(f"Webhooks of {source} come to {address}")
    if generate:
        say(f"Secret, shown this once: {plain}")
    if not ready:
        say("There is no secret yet, so every delivery is refused: give one with --secret @FILE or --generate.")


@app.command("list")
def list_(as_json: bool = JSON) -> None:
    """List the sources."""
    with engine() as stellwerk:
        rows = stellwerk.rows(
            "select source, kind, scheme, cardinality(secrets) as secrets, enabled, signature_header, timestamp_header,"
            " key_at, event_at, correlation_at, signals, emits, created_at, created_by"
            " from stellwerk.webhook_source where tenant_id = stellwerk.current_tenant_id() order by source"
        )
    listing(
        rows,
        as_json=as_json,
        empty="There is no webhook source.",
        columns=["source", "kind", "scheme", "secrets", "enabled", "event_at", "correlation_at", "signals", "emits"],
    )


@app.command()
def remove(source: str = SOURCE) -> None:
    """Remove a source; what it delivered stays."""
    with engine() as stellwerk:
        if not stellwerk.remove_webhook_source(source):
            raise UnknownThing(f"there is no webhook source {source!r}", hint="stellwerk hook list shows them.")
    say(f"Removed {source}; its deliveries are refused from now on.")


@app.command()
def deliveries(
    source: str | None = typer.Option(None, "--source", help="Only of this source, form or event."),
    state: str | None = typer.Option(None, "--state", help="pending, processed, ignored or failed."),
    limit: int = typer.Option(50, "--limit", min=1, max=10000, help="How many, the latest first."),
    as_json: bool = JSON,
) -> None:
    """List what came in: webhooks, submitted forms and emitted events, and what became of each."""
    with engine() as stellwerk:
        rows = stellwerk.rows(
            "select delivery_id, kind, source, event, correlation, state, reason, outcomes, replays, key, received_at,"
            " processed_at from stellwerk.webhook_delivery where tenant_id = stellwerk.current_tenant_id()"
            " and (%s::text is null or source = %s) and (%s::text is null or state = %s)"
            " order by delivery_id desc limit %s",
            [source, source, state, state, limit],
        )
    listing(
        rows,
        as_json=as_json,
        empty="Nothing came in.",
        columns=["delivery_id", "received_at", "kind", "source", "event", "correlation", "state", "reason"],
    )


@app.command()
def replay(delivery: int = typer.Argument(help="Number of the delivery, form or event.")) -> None:
    """Have a delivery looked at again: a failed one goes on where it failed, any other does everything anew."""
    with engine() as stellwerk:
        stellwerk.replay_delivery(delivery)
    say(f"Delivery {delivery} will be looked at again.")


def emit(
    event: str = typer.Argument(help="Name of the event, such as document.completed."),
    payload: str = typer.Option("{}", "--payload", help="JSON, @FILE, or @- for standard input."),
    key: str | None = typer.Option(None, "--key", help="A second event with the same key changes nothing."),
    as_json: bool = JSON,
) -> None:
    """Say that something has happened: workflows with a trigger.event of that name start."""
    with engine() as stellwerk:
        number = stellwerk.emit_event(event, read_json(payload), key)
    say(to_json({"delivery_id": number}) if as_json else str(number))


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{option} {text!r} cannot be read", hint=f"Write {option} EVENT=NAME.")
        pairs[name] = value
    return pairs


def _read_secret(text: str) -> str:
    if not text.startswith("@"):
        raise UsageError(
            "a secret on the command line would be seen by others on this machine and kept in the shell's history",
            hint="Give --secret @FILE, or --secret @- for standard input.",
        )
    try:
        return (sys.stdin.read() if text == "@-" else Path(text[1:]).read_text("utf-8")).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StellwerkError(f"the file {text[1:]} cannot be read: {error}") from None


def _secrets_of(stellwerk: Engine, source: str) -> list[str]:
    rows: list[dict[str, Any]] = stellwerk.rows(
        "select secrets from stellwerk.webhook_source where tenant_id = stellwerk.current_tenant_id() and source = %s",
        [source],
    )
    return list(rows[0]["secrets"]) if rows else []
