"""What clients send that lie, stop, or never end; over a real connection, and the same for every address."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import pytest
from web.alike import said, without_name

from stellwerk.integrations import signatures

BODY = b'{"type": "order.paid", "n": 1}'
LARGEST = 1024 * 1024


@pytest.fixture(scope="module")
def addresses():
    """The place of a real source, and of one of a tenant that there is not."""
    return ("/hooks/default/shop", "/hooks/nobody/nothing")


@pytest.fixture
def place(serving, source):
    """Host and port of a web server that has the source."""
    source("shop")
    parts = urlsplit(serving.url)
    return parts.hostname, parts.port


def talk(place, path: str, headers: dict[str, str], *pieces: bytes, hang_up: bool = False) -> tuple[int, str, bytes]:
    """Send a request as it stands; answers status, headers and body of the first answer, without the date and the request's name."""
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(place, 10) as line:
        try:
            line.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\n{head}\r\n".encode("latin-1"))
            for piece in pieces:
                line.sendall(piece)
        except OSError:
            pass  # it has heard enough
        if hang_up:
            return 0, "", b""
        with line.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            lines = list(iter(answer.readline, b"\r\n"))
            named = {line.split(b":")[0].lower(): line.split(b":", 1)[1].strip() for line in lines}
            text = answer.read(int(named.get(b"content-length", b"0")))
    lines, text = without_name(lines, text)
    return status, json.dumps(sorted(str(line) for line in lines if not line.lower().startswith(b"date:"))), text


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def test_a_body_that_is_sent_in_chunks_is_taken(place, addresses, signed, deliveries):
    headers = {**signed(BODY), "transfer-encoding": "chunked"}
    assert talk(place, addresses[0], headers, chunked(BODY[:7], BODY[7:]))[0] == 202
    assert bytes(deliveries()[0]["body"]) == BODY


TOO_MUCH = b"x" * 65536
LIES = {
    "announces too much": (413, {"content-length": str(LARGEST + 1)}, []),
    "announces a terabyte": (413, {"content-length": str(10**12)}, []),
    "too much in chunks": (413, {"transfer-encoding": "chunked"}, [chunked(TOO_MUCH)[:-5]] * 20),
    "one enormous chunk": (413, {"transfer-encoding": "chunked"}, [b"200000\r\n", *[TOO_MUCH] * 20]),
    "no number": (400, {"content-length": "many"}, [BODY]),
    "a negative number": (400, {"content-length": "-1"}, [BODY]),
    "chunks and a length": (400, {"content-length": str(len(BODY)), "transfer-encoding": "chunked"}, [chunked(BODY)]),
    "no chunk": (400, {"transfer-encoding": "chunked"}, [b"zz\r\n"]),
    "announces less": (400, {"content-length": "10"}, [BODY]),  # what is left is no request
    "another coding": (401, {"content-length": str(len(BODY)), "content-encoding": "gzip"}, [BODY[::-1]]),
}


@pytest.mark.one_server
@pytest.mark.parametrize("lie", LIES)
def test_who_lies_about_the_length_is_refused_alike_everywhere(place, addresses, signed, deliveries, lie):
    status, headers, pieces = LIES[lie]
    answers = [talk(place, path, {**signed(BODY), **headers}, *pieces) for path in addresses]
    assert [answer[0] for answer in answers] == [status, status], answers
    assert answers[0] == answers[1]
    assert deliveries() == []
    # And the process has taken no harm.
    genuine = {**signed(BODY), "content-length": str(len(BODY))}
    assert talk(place, addresses[0], genuine, BODY)[0] == 202


@pytest.mark.one_server
def test_who_hangs_up_before_the_end_has_sent_nothing(place, addresses, signed, deliveries):
    headers = {**signed(BODY), "content-length": str(len(BODY) + 5)}
    for path in addresses:
        talk(place, path, headers, BODY, hang_up=True)
        talk(place, path, {**signed(BODY), "transfer-encoding": "chunked"}, chunked(BODY)[:-5], hang_up=True)
    assert talk(place, addresses[0], {**signed(BODY), "content-length": str(len(BODY))}, BODY)[0] == 202
    assert len(deliveries()) == 1


# -- every scheme ------------------------------------------------------------------------------------------------------

OTHER = {"hmac": "v1=", "standard": "v1,", "slack": "v0="}


def wrongs(scheme: str, secret: str, body: bytes, at: int) -> dict[str, tuple[bytes, dict[str, str]]]:
    """Every way in which a delivery of a scheme is not genuine."""

    def sign(**more):
        return signatures.sign(
            scheme, more.pop("secret", secret), more.pop("body", body), **{"timestamp": at, "number": "m1", **more}
        )

    good = sign()
    ways = {
        "wrong secret": (body, sign(secret=signatures.new_secret(scheme))),
        "missing": (body, {}),
    }
    for name in good:
        ways[f"without {name}"] = (body, {other: value for other, value in good.items() if other != name})
        ways[f"empty {name}"] = (body, {**good, name: ""})
    if scheme == "token":
        word = good["authorization"]
        for what, text in {
            "longer": word + "x",
            "shorter": word[:-1],
            "other case": word.swapcase(),
            "basic": word.replace("Bearer", "Basic"),
            "twice": f"{word}, {word}",
        }.items():
            ways[what] = (body, {"authorization": text})
        return ways
    ways |= {
        "another body": (body + b" ", good),
        "re-encoded body": (json.dumps(json.loads(body), separators=(",", ":")).encode(), good),
        "empty body": (b"", good),
        "old": (body, sign(timestamp=at - 301)),
        "from the future": (body, sign(timestamp=at + 310)),
        "another time": (body, {name: value.replace(str(at), str(at + 1)) for name, value in good.items()}),
        "time with a plus": (body, {name: value.replace(str(at), f"+{at}") for name, value in good.items()}),
        "time with a zero": (body, {name: value.replace(str(at), f"0{at}") for name, value in good.items()}),
    }
    (header,) = [name for name in good if "signature" in name]
    text = good[header]
    digits = text.rpartition(OTHER[scheme])[2]
    for what, instead in {
        "capitals": digits.upper(),
        "without its end": digits[:-1],
        "with more": digits + "0",
        "padded": digits + "=",
        "quoted": f'"{digits}"',
        "of another version": digits,
    }.items():
        version = "v9" + OTHER[scheme][2] if what == "of another version" else OTHER[scheme]
        ways[f"signature {what}"] = (body, {**good, header: text[: -len(digits) - 3] + version + instead})
    return ways


@pytest.mark.parametrize("scheme", signatures.SCHEMES)
def test_nothing_but_the_genuine_delivery_of_a_scheme_is_taken(client, source, signed, deliveries, db, scheme):
    secret = signatures.new_secret(scheme)
    address = source("shop", scheme, secret)
    at = int(db.execute("select extract(epoch from stellwerk.clock())").fetchone()[0])
    ways = wrongs(scheme, secret, BODY, at)
    answers = {}
    for where in (address, "/hooks/default/nothing", "/hooks/nobody/shop"):
        for way, (body, headers) in ways.items():
            answer = client.post(where, content=body, headers={"content-type": "application/json", **headers})
            answers[where, way] = said(answer)
    assert len({str(answer) for answer in answers.values()}) == 1, [
        way for way, answer in answers.items() if answer[0] != 401
    ]
    assert {status for status, _, _ in answers.values()} == {401}
    assert deliveries() == []
    genuine = signatures.sign(scheme, secret, BODY, timestamp=at, number="m1")
    assert client.post(address, content=BODY, headers=genuine).status_code == 202
    # Replayed, it is acknowledged and changes nothing; a token has nothing that tells two deliveries apart.
    assert client.post(address, content=BODY, headers=genuine).status_code == 202
    assert len(deliveries()) == (2 if scheme == "token" else 1)
