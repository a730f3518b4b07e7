"""Signatures: published examples hold, and whatever differs in a byte does not."""

from __future__ import annotations

import base64
import stat

import pytest
from cryptography.fernet import Fernet

from stellwerk.errors import UsageError
from stellwerk.integrations.sealing import KEY_FILE, Seals, generated_key
from stellwerk.integrations.signatures import SCHEMES, fault_of, new_secret, sign, verify, with_standard_names
from stellwerk.settings import Settings

# The test vector of the Standard Webhooks libraries.
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STANDARD_BODY = b'{"test": 2432232314}'
STANDARD_AT = 1614265330
STANDARD_HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}

# The example of Slack's page "Verifying requests from Slack".
SLACK_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
SLACK_AT = 1531420618
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
SLACK_HEADERS = {
    "x-slack-request-timestamp": "1531420618",
    "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
}


def test_the_example_of_standard_webhooks():
    verdict = verify("standard", [STANDARD_SECRET], STANDARD_HEADERS, STANDARD_BODY, STANDARD_AT)
    assert verdict.genuine
    assert verdict.digest is not None
    assert (
        sign(
            "standard",
            STANDARD_SECRET,
            STANDARD_BODY,
            timestamp=STANDARD_AT,
            number="msg_p5jXN8AQM9LWM0D4loKWxJek",
        )
        == STANDARD_HEADERS
    )


def test_the_same_as_svix_and_resend_send_it():
    headers = {name.replace("webhook-", "svix-"): value for name, value in STANDARD_HEADERS.items()}
    assert not verify("standard", [STANDARD_SECRET], headers, STANDARD_BODY, STANDARD_AT).genuine
    headers = with_standard_names(headers)
    assert verify("standard", [STANDARD_SECRET], headers, STANDARD_BODY, STANDARD_AT).genuine


def test_the_example_of_slack():
    assert verify("slack", [SLACK_SECRET], SLACK_HEADERS, SLACK_BODY, SLACK_AT).genuine
    assert sign("slack", SLACK_SECRET, SLACK_BODY, timestamp=SLACK_AT) == SLACK_HEADERS


def test_one_right_signature_among_others_is_enough():
    """A sender that changes its secret signs with both; the receiver may know either."""
    wrong = "v1," + base64.b64encode(bytes(32)).decode()
    headers = {**STANDARD_HEADERS, "webhook-signature": f"{wrong} v1a,xyz {STANDARD_HEADERS['webhook-signature']}"}
    assert verify("standard", [STANDARD_SECRET], headers, STANDARD_BODY, STANDARD_AT).genuine
    other = new_secret("standard")
    assert verify("standard", [other, STANDARD_SECRET], STANDARD_HEADERS, STANDARD_BODY, STANDARD_AT).genuine
    assert not verify("standard", [other], STANDARD_HEADERS, STANDARD_BODY, STANDARD_AT).genuine


@pytest.mark.parametrize("scheme", ["hmac", "standard", "slack"])
@pytest.mark.parametrize(("late", "genuine"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)])
def test_five_minutes_early_or_late_are_tolerated(scheme, late, genuine):
    secret = new_secret(scheme)
    headers = sign(scheme, secret, b"{}", timestamp=1_700_000_000, number="m1")
    assert verify(scheme, [secret], headers, b"{}", 1_700_000_000 + late).genuine is genuine


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_is_genuine_without_a_secret(scheme):
    secret = new_secret(scheme)
    headers = sign(scheme, secret, b"{}", timestamp=1_700_000_000, number="m1")
    assert verify(scheme, [secret], headers, b"{}", 1_700_000_000).genuine
    assert not verify(scheme, [], headers, b"{}", 1_700_000_000).genuine
    assert not verify(scheme, [""], sign(scheme, "", b"{}", timestamp=1_700_000_000, number="m1"), b"{}", 1.7e9).genuine
    assert not verify(scheme, [new_secret(scheme)], headers, b"{}", 1_700_000_000).genuine
    assert not verify(None, [secret], headers, b"{}", 1_700_000_000).genuine


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_header_is_needed(scheme):
    secret = new_secret(scheme)
    headers = sign(scheme, secret, b"{}", timestamp=1_700_000_000, number="m1")
    for name in headers:
        for instead in ({}, {name: ""}):
            rest = {other: value for other, value in headers.items() if other != name} | instead
            assert not verify(scheme, [secret], rest, b"{}", 1_700_000_000).genuine, (name, instead)


@pytest.mark.parametrize("scheme", ["hmac", "standard", "slack"])
def test_another_body_time_or_number_is_refused(scheme):
    secret = new_secret(scheme)
    headers = sign(scheme, secret, b'{"a": 1}', timestamp=1_700_000_000, number="m1")
    assert not verify(scheme, [secret], headers, b'{"a":1}', 1_700_000_000).genuine
    assert not verify(scheme, [secret], headers, b'{"a": 1}\n', 1_700_000_000).genuine
    for name, value in headers.items():
        for old, new in (("1700000000", "1700000001"), ("m1", "m2")):
            if old in value:
                changed = {**headers, name: value.replace(old, new)}
                assert not verify(scheme, [secret], changed, b'{"a": 1}', 1_700_000_000).genuine


def test_signatures_that_were_encoded_anew_are_refused():
    signature = STANDARD_HEADERS["webhook-signature"]
    assert base64.b64decode(signature[3:]) == base64.b64decode(signature[3:-2] + "F=")  # the same bytes
    for text in (
        signature[:-2] + "F=",
        signature[:-1],
        signature + "=",
        signature.replace("+", "-").replace("/", "_"),
        "V1," + signature[3:],
        signature.replace(",", ", "),
        "v1," + base64.b64decode(signature[3:]).hex(),
    ):
        headers = {**STANDARD_HEADERS, "webhook-signature": text}
        assert not verify("standard", [STANDARD_SECRET], headers, STANDARD_BODY, STANDARD_AT).genuine, text
    digits = SLACK_HEADERS["x-slack-signature"][3:]
    for text in (
        "v0=" + digits.upper(),
        digits,
        "v0=" + base64.b64encode(bytes.fromhex(digits)).decode(),
        "v1=" + digits,
    ):
        headers = {**SLACK_HEADERS, "x-slack-signature": text}
        assert not verify("slack", [SLACK_SECRET], headers, SLACK_BODY, SLACK_AT).genuine, text


@pytest.mark.parametrize(
    "timestamp", ["1614265330.0", " 1614265330", "+1614265330", "١٦١٤٢٦٥٣٣٠", "1e9", "-1", "9" * 400, "é"]
)
def test_a_timestamp_is_digits_and_nothing_else(timestamp):
    body = b"{}"
    headers = sign("standard", STANDARD_SECRET, body, timestamp=STANDARD_AT, number="m")
    headers["webhook-timestamp"] = timestamp
    assert not verify("standard", [STANDARD_SECRET], headers, body, STANDARD_AT).genuine


def test_the_parts_of_what_was_signed_cannot_be_moved():
    """id.timestamp.body could be cut at another place, so a number holds no full stop."""
    body = f"{STANDARD_AT}.{{}}".encode()
    headers = sign("standard", STANDARD_SECRET, body, timestamp=1, number="m")
    moved = {**headers, "webhook-id": "m.1", "webhook-timestamp": str(STANDARD_AT)}
    assert not verify("standard", [STANDARD_SECRET], moved, b"{}", STANDARD_AT).genuine


def test_timestamp_and_signature_in_two_headers():
    secret, body = new_secret("hmac"), b"{}"
    text = sign("hmac", secret, body, timestamp=STANDARD_AT)["stellwerk-signature"].split("v1=")[1]
    for written in (text, "sha256=" + text):
        headers = {"x-signature": written, "x-timestamp": str(STANDARD_AT)}
        named = {"signature_header": "x-signature", "timestamp_header": "x-timestamp"}
        assert verify("hmac", [secret], headers, body, STANDARD_AT, **named).genuine
        assert not verify("hmac", [secret], {"x-signature": written}, body, STANDARD_AT, **named).genuine


def test_a_token_is_compared_whole():
    secret = new_secret("token")
    for text, genuine in (
        (secret, True),
        ("Bearer " + secret, True),
        (secret[:-1], False),
        (secret + "x", False),
        (secret.upper(), False),
        ("Bearer ", False),
        ("é" * 9, False),
    ):
        verdict = verify("token", [secret], {"authorization": text}, b"{}", 0)
        assert (verdict.genuine, verdict.digest) == (genuine, None)


def test_secrets_that_cannot_be_meant_are_named():
    assert fault_of("slack", "short")
    assert fault_of("hmac", " with spaces around ")
    assert "base64" in str(fault_of("standard", "whsec_not base64!"))
    assert [fault_of(scheme, new_secret(scheme)) for scheme in SCHEMES] == [None] * len(SCHEMES)


# -- secrets at rest --------------------------------------------------------------------------------------------------


def test_a_sealed_secret_opens_for_its_purpose_only():
    seals = Seals([Fernet.generate_key().decode()])
    sealed = seals.seal("webhook_source/1/a", "the secret")
    assert "the secret" not in sealed
    assert seals.unseal("webhook_source/1/a", sealed) == "the secret"
    assert seals.unseal("webhook_source/2/a", sealed) is None
    assert seals.unseal("webhook_source/1/a", sealed[:-2] + "AA") is None
    assert seals.unseal("webhook_source/1/a", "nonsense") is None


def test_keys_can_be_changed():
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    sealed = Seals([old]).seal("p", "s")
    assert Seals([new, old]).unseal("p", sealed) == "s"
    assert Seals([old]).unseal("p", Seals([new, old]).seal("p", "s")) is None
    assert Seals([new]).unseal("p", sealed) is None


def test_a_key_that_is_none_is_refused_without_being_shown():
    with pytest.raises(UsageError) as raised:
        Seals(["my-password"])
    assert "my-password" not in f"{raised.value.message} {raised.value.hint}"


def test_a_key_is_made_once_and_is_for_this_account_alone(tmp_path):
    home = tmp_path / "home"
    key = generated_key(home)
    assert generated_key(home) == key
    assert stat.S_IMODE((home / KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in home.iterdir()] == [KEY_FILE]
    sealed = Seals.from_settings(Settings(home=home)).seal("p", "s")
    assert Seals([key]).unseal("p", sealed) == "s"
