"""Mails leave the outbox by SMTP, after the commit, once; a server that is busy is asked again."""

from __future__ import annotations

import asyncio
import datetime
import email
import email.policy
import ipaddress
import logging
import socket
import ssl

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from database.helpers import start
from database.people import ADA, BEN, CAT, ask, complete, deciding, pass_time, users

from stellwerk.errors import UsageError
from stellwerk.executors.base import ExecutorError
from stellwerk.worker import effects
from stellwerk.worker.effects import Gate
from stellwerk.worker.mail import compose
from stellwerk.worker.mail_server import MailServer


class Mailbox:
    """A mail server that keeps what it gets; `refuse` answers the next ones instead."""

    def __init__(self):
        self.mails = []
        self.refuse = []

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("gone@"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if self.refuse:
            return self.refuse.pop(0)
        self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 OK"

    @property
    def seen(self):
        return sorted((mail["To"], mail["Subject"]) for mail in self.mails)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def mailbox():
    handler = Mailbox()
    server = Controller(handler, hostname="127.0.0.1", port=free_port())
    server.start()
    handler.url = f"smtp://127.0.0.1:{server.port}?from=desk@example.org"
    yield handler
    server.stop()


def try_again_now(db, wait_until):
    """Once nobody holds a mail any more, let the next attempt be due."""
    queued = "select count(*) from stellwerk.message m join stellwerk_queue.pgqueuer q on q.id = m.job_id"
    wait_until(lambda: db.execute(queued).fetchone() == (0,))
    db.execute("update stellwerk.message set due_at = now()")
    db.execute("select stellwerk.tick()")


def outbox(db):
    return db.execute("select recipient, state, attempts, error from stellwerk.message order by message_id").fetchall()


def test_a_mail_tells_when_a_task_arrives_is_due_and_is_overdue(
    db, make_workflow, run_all, start_worker, wait_until, mailbox
):
    users(db)
    slug = make_workflow(
        deciding(
            "mail",
            {
                "title": "Sign\nthe {{ trigger.payload.what }}",
                "assignee": ADA,
                "instructions": "Read it first.",
                "due": "P5D",
            },
        )
    )
    run_id, task_id = ask(db, slug, {"what": "contract é"}, run_all)
    assert outbox(db) == [(ADA, "queued", 0, None)]
    start_worker({}, smtp_url=mailbox.url)
    wait_until(lambda: outbox(db) == [(ADA, "sent", 1, None)])
    (mail,) = mailbox.mails
    assert (mail["From"], mail["To"], mail["Subject"]) == ("desk@example.org", ADA, "Task: Sign the contract é")
    assert mail["Message-ID"].endswith("stellwerk@example.org>")
    text = mail.get_content()
    assert "Read it first." in text
    assert f"https://stellwerk.example.org/tasks/{task_id}" in text
    pass_time(db, run_id, "4 days 1 hour")
    wait_until(lambda: len(mailbox.mails) == 2)  # else a tick that comes late finds it overdue already
    pass_time(db, run_id, "1 day")
    wait_until(lambda: len(mailbox.mails) == 3)
    assert [mail["Subject"].split(":")[0] for mail in mailbox.mails] == ["Task", "Due soon", "Overdue"]


def test_everybody_of_a_role_who_wants_mails_gets_one(db, make_workflow, run_all, start_worker, wait_until, mailbox):
    users(db)
    for call in ("add_user('dan@example.org', 'staff')", "change_user('dan@example.org', mails => false)",
                 "add_user('eve@example.org', 'staff')", "change_user('eve@example.org', active => false)"):  # fmt: skip
        db.execute(f"select stellwerk.{call}")
    _, task_id = ask(db, make_workflow(deciding("role", {"role": "staff"})), None, run_all)
    start_worker({}, smtp_url=mailbox.url)
    wait_until(lambda: len(mailbox.mails) == 2)
    assert [to for to, _ in mailbox.seen] == [ADA, BEN]
    complete(db, task_id, "approve")
    wait_until(lambda: db.execute("select state from stellwerk.run").fetchone() == ("completed",))
    assert len(mailbox.mails) == 2


def test_who_gets_no_mail_and_why_stands_in_the_outbox(db, make_workflow, run_all):
    users(db)
    db.execute(
        "select stellwerk.change_user(%s, mails => false), stellwerk.change_user(%s, active => false)", (ADA, BEN)
    )
    for who in (ADA, BEN, "stranger@example.org", "nobody"):
        ask(db, make_workflow(deciding(f"no-{who.split('@')[0]}", {"assignee": who})), None, run_all)
    assert outbox(db) == [
        (ADA, "suppressed", 0, "the user wants no mails"),
        (BEN, "suppressed", 0, "the user is no longer active"),
        ("stranger@example.org", "suppressed", 0, "there is no user with this address"),
    ]


def test_without_a_mail_server_mails_are_suppressed(db, make_workflow, run_all, start_worker, wait_until):
    users(db)
    ask(db, make_workflow(deciding("none", {"assignee": ADA})), None, run_all)
    start_worker({})
    wait_until(lambda: outbox(db) == [(ADA, "suppressed", 1, "no mail server is set: STELLWERK_SMTP_URL is empty")])


def test_a_busy_server_is_asked_again_and_a_refusal_is_final(db, make_workflow, start_worker, wait_until, mailbox):
    users(db)
    db.execute("select stellwerk.add_user('gone@example.org', 'staff')")
    mailbox.refuse.append("451 try later")
    start_worker({}, smtp_url=mailbox.url)
    start(db, make_workflow(deciding("busy", {"assignee": ADA})))
    wait_until(lambda: outbox(db) == [(ADA, "queued", 1, "451 try later")])
    (later,) = db.execute(
        "select due_at - now() between interval '20 s' and interval '31 s' from stellwerk.message"
    ).fetchone()
    assert later
    try_again_now(db, wait_until)
    wait_until(lambda: outbox(db) == [(ADA, "sent", 2, None)])
    start(db, make_workflow(deciding("gone", {"assignee": "gone@example.org"})))
    wait_until(lambda: outbox(db)[1:] == [("gone@example.org", "failed", 1, "550 no such mailbox")])
    assert len(mailbox.mails) == 1


def test_a_server_that_is_not_there_is_asked_eight_times(db, make_workflow, run_all, start_worker, wait_until):
    users(db)
    ask(db, make_workflow(deciding("away", {"assignee": ADA})), None, run_all)
    db.execute("update stellwerk.message set attempts = 6")
    start_worker({}, smtp_url=f"smtp://127.0.0.1:{free_port()}")
    wait_until(lambda: outbox(db)[0][3])
    assert outbox(db)[0][1:3] == ("queued", 7)
    assert "cannot be reached" in outbox(db)[0][3]
    try_again_now(db, wait_until)
    wait_until(lambda: outbox(db)[0][1:3] == ("failed", 8))


@pytest.mark.one_server
def test_a_mail_is_never_in_two_hands(db, make_workflow, run_all):
    users(db)
    ask(db, make_workflow(deciding("hands", {"assignee": CAT})), None, run_all)
    (message_id,) = db.execute("select message_id from stellwerk.message").fetchone()
    begin = "select count(*) from stellwerk.begin_message(1, %s)"
    assert db.execute(begin, (message_id,)).fetchone() == (1,)
    assert db.execute(begin, (message_id,)).fetchone() == (0,)
    db.execute("update stellwerk.message set due_at = now()")  # the worker has vanished
    assert db.execute(begin, (message_id,)).fetchone() == (1,)
    db.execute("select stellwerk.end_message(1, %s, 'sent')", (message_id,))
    db.execute("select stellwerk.end_message(1, %s, 'failed', 'late')", (message_id,))
    assert outbox(db) == [(CAT, "sent", 2, None)]


def send(mail, url, **gate):
    """Hand a mail in, through a gate of its own."""

    async def hand_in():
        through = Gate(**gate)
        try:
            await through.send_mail(MailServer.from_url(url), mail)
        finally:
            await through.aclose()

    asyncio.run(hand_in())


def test_a_password_is_not_sent_in_clear_unless_it_is_said_so():
    logins = []

    def check(server, session, envelope, mechanism, data):
        logins.append((data.login, data.password))
        return AuthResult(success=data.password == b"p@ss")

    server = Controller(
        Mailbox(),
        hostname="127.0.0.1",
        port=free_port(),
        authenticator=check,
        auth_require_tls=False,
        auth_required=True,
    )
    server.start()
    try:
        mail = compose((1, 2), (ADA, "s", "b", None), "desk@example.org", "")
        send(mail, f"smtp://desk:p%40ss@127.0.0.1:{server.port}?starttls=offered")
        with pytest.raises(ExecutorError, match="STARTTLS"):  # a password goes over TLS unless somebody says otherwise
            send(mail, f"smtp://desk:p%40ss@127.0.0.1:{server.port}")
    finally:
        server.stop()
    assert logins == [(b"desk", b"p@ss")]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example.org", ("mail.example.org", 25, "stellwerk@mail.example.org", False, None, None)),
        ("smtp://a%40b.org:p%2Fw@mail:2525", ("mail", 2525, "a@b.org", False, "a@b.org", "p/w")),
        ("smtp://me:pw@mail", ("mail", 587, "stellwerk@mail", False, "me", "pw")),
        ("smtps://me:pw@mail?from=x@y.org", ("mail", 465, "x@y.org", True, "me", "pw")),
    ],
)
def test_the_address_of_a_mail_server_is_read(url, expected):
    server = MailServer.from_url(url)
    assert (server.host, server.port, server.sender, server.tls, server.user, server.password) == expected
    assert "pw" not in repr(server)


@pytest.mark.parametrize(
    "url",
    [
        "mail.example.org",
        "http://secret@mail",
        "smtp://",
        "smtp://u:secret@mail:port",
        "smtp://mail?from=me",
        "smtp://[mail",
        "smtp://u:secret@mail?starttls=maybe",
        "smtp://u:secret@mail?host=any",
        "smtp://u:secret@mail?colour=secret",
    ],
)
def test_a_wrong_address_is_told_without_the_password(url):
    with pytest.raises(UsageError) as told:
        MailServer.from_url(url)
    assert "secret" not in told.value.message


def test_nothing_in_a_task_becomes_a_header():
    mail = compose((1, 2), (ADA, "Hi\r\nBcc: eve@example.org", "b\n.\nc", "/tasks/1"), "desk@example.org", "http://x")
    assert mail["Bcc"] is None
    assert mail["Subject"] == "Hi Bcc: eve@example.org"
    with pytest.raises(ValueError, match=r"newline|linefeed|CR"):
        compose((1, 2), ("a@b.org\r\nBcc: eve@example.org", "s", "b", None), "desk@example.org", "")


def test_a_mail_goes_out_once_the_server_is_back_and_once_only(db, make_workflow, run_all, start_worker, wait_until):
    users(db)
    port = free_port()
    ask(db, make_workflow(deciding("back", {"assignee": ADA})), None, run_all)
    start_worker({}, smtp_url=f"smtp://127.0.0.1:{port}")
    # Counted when it begins: it has to have failed as well, or it may yet find the server there.
    wait_until(lambda: outbox(db)[0][1:3] == ("queued", 1) and outbox(db)[0][3])
    handler = Mailbox()
    server = Controller(handler, hostname="127.0.0.1", port=port)
    server.start()
    try:
        try_again_now(db, wait_until)
        wait_until(lambda: outbox(db) == [(ADA, "sent", 2, None)])
        db.execute("update stellwerk.message set due_at = now()")
        db.execute("select stellwerk.tick()")
        assert db.execute("select stellwerk.requeue_messages(1)").fetchone() == (0,)
    finally:
        server.stop()
    assert len(handler.mails) == 1


# -- the gate ----------------------------------------------------------------------------------------------------------

MAIL = ((1, 2), (ADA, "s", "b", None), "desk@example.org", "")


def certificate(folder, name):
    """A server's TLS context with a certificate of its own making, and the context of a client that trusts it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "mail")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cafile=file)


def knock(port):
    """What the controller does to wake its server, which would not trust this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), 5) as plain, context.wrap_socket(plain) as line:
        line.recv(100)


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize("right", [True, False])
def test_the_server_proves_its_name_over_tls(tmp_path, scheme, right):
    from cryptography import x509

    name = x509.IPAddress(ipaddress.ip_address("127.0.0.1")) if right else x509.DNSName("elsewhere.example.org")
    ours, theirs = certificate(tmp_path, name)
    handler = Mailbox()
    more = {"ssl_context": ours} if scheme == "smtps" else {"tls_context": ours, "require_starttls": True}
    server = Controller(handler, hostname="127.0.0.1", port=free_port(), **more)
    if scheme == "smtps":
        server._trigger_server = lambda: knock(server.port)
    server.start()
    try:
        url = f"{scheme}://127.0.0.1:{server.port}" + ("?starttls=required" if scheme == "smtp" else "")
        if right:
            send(compose(*MAIL), url, tls=theirs)
        else:
            with pytest.raises(ExecutorError, match=r"[Cc]ertificate|CERTIFICATE"):
                send(compose(*MAIL), url, tls=theirs)
            with pytest.raises(ExecutorError, match=r"[Cc]ertificate|CERTIFICATE"):
                send(compose(*MAIL), url)
    finally:
        server.stop()
    assert len(handler.mails) == right


def test_the_host_may_be_private_unless_that_is_to_be_checked(mailbox):
    send(compose(*MAIL), mailbox.url)
    with pytest.raises(ExecutorError, match="not on the public internet") as refused:
        send(compose(*MAIL), mailbox.url + "&host=public")
    assert (refused.value.error_class, refused.value.retryable) == ("blocked", False)
    send(compose(*MAIL), mailbox.url + "&host=public", allowed_hosts=["127.0.0.1"])
    assert len(mailbox.mails) == 2


def test_a_server_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(effects, "MAIL_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ExecutorError, match="in time") as late:
        send(compose(*MAIL), f"smtp://127.0.0.1:{silent.getsockname()[1]}")
    assert (late.value.error_class, late.value.retryable) == ("timeout", True)


def test_a_server_that_hangs_up_after_it_took_the_mail_has_it(mailbox, monkeypatch):
    async def hang_up(server, session, envelope):
        mailbox.mails.append(envelope.content)
        await server.push("250 OK")
        server.transport.abort()

    monkeypatch.setattr(mailbox, "handle_DATA", hang_up)
    send(compose(*MAIL), mailbox.url)
    assert len(mailbox.mails) == 1


@pytest.mark.parametrize("starttls", ["off", "offered"])
def test_an_address_that_the_server_cannot_take_is_refused_for_good(starttls):
    handler = Mailbox()
    mail = compose((1, 2), ("jürg@example.org", "s", "b", None), "desk@example.org", "")
    for able in (True, False):
        server = Controller(handler, hostname="127.0.0.1", port=free_port(), enable_SMTPUTF8=able)
        server.start()
        try:
            url = f"smtp://127.0.0.1:{server.port}?starttls={starttls}"
            if able:
                send(mail, url)
            else:
                with pytest.raises(ExecutorError, match="SMTPUTF8") as refused:
                    send(mail, url)
                assert not refused.value.retryable
        finally:
            server.stop()
    assert len(handler.mails) == 1


def test_neither_password_nor_text_stands_in_a_log(caplog):
    caplog.set_level(logging.DEBUG)
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("mail."):  # this test's server logs what it hears
            logging.getLogger(name).setLevel(logging.CRITICAL)
    server = Controller(
        Mailbox(),
        hostname="127.0.0.1",
        port=free_port(),
        authenticator=lambda *_: AuthResult(success=False, handled=False),
        auth_require_tls=False,
    )
    server.start()
    try:
        mail = compose((1, 2), (ADA, "subject-of-it", "body-of-it", None), "desk@example.org", "")
        with pytest.raises(ExecutorError, match="refuses the login: 535") as refused:
            send(mail, f"smtp://desk:geheim@127.0.0.1:{server.port}?starttls=off")
    finally:
        server.stop()
    assert refused.value.error_class == "mail_login"
    for word in ("geheim", "Z2VoZWlt", "subject-of-it", "body-of-it"):
        assert word not in caplog.text + refused.value.message
