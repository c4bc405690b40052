"""What a server is seen to have: the champion, the version before it, or nothing that can be told; each in one line."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from ports import HOST, free_port
from scoring_server import RUN, for_ever, moved, predicting, promoted, rows, said, scoring

from megu.core.project import Project
from megu.data import arrays
from megu.lineage.promoted.champions import INTENDED
from megu.lineage.promoted.probes import Probes
from megu.serving import check, http

CHAMPION, OTHER = rows(1), rows(2)


def made(before: str = "1", other: np.ndarray = OTHER) -> Probes:
    return Probes(
        format=1,
        model="megu",
        version="2",
        before=before,
        data="photos",
        key="k",
        samples=["s"] * len(CHAMPION),
        champion=CHAMPION.tolist(),
        other=other.tolist() if before else [],
    )


@pytest.mark.parametrize(
    ("before", "other", "served", "verdict", "says"),
    [
        ("1", OTHER, CHAMPION, "champion", "serves the champion (version 2)"),
        ("1", OTHER, OTHER, "before", "still serves version 1"),
        ("original", OTHER, OTHER, "before", "still serves the original model, which knows what was to be forgotten"),
        ("1", OTHER, rows(3), "unknown", "cannot tell: its answers are neither those of the champion (version 2) nor those of version 1"),
        ("1", CHAMPION + 0.0015, CHAMPION + 0.0008, "unknown", "cannot tell: the answers of the champion (version 2) and version 1 are"),
        ("1", OTHER, rows(1, classes=5), "unknown", "cannot tell: its answers are neither"),
        ("", OTHER, CHAMPION, "unknown", "cannot tell: it answers as the champion (version 2), but the answers of the version before it are"),
        ("", OTHER, OTHER, "unknown", "cannot tell: its answers are not those of the champion (version 2)"),
    ],
)  # fmt: skip
def test_whose_answers_they_are(before: str, other: np.ndarray, served: np.ndarray, verdict: str, says: str) -> None:
    found = check.compared(made(before, other), list(range(6)), served)
    assert found[0] == verdict
    assert found[1].startswith(says)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.98), st.floats(1.05, 50))
def test_other_arithmetic_is_the_same_model_and_another_model_is_not(seed: int, little: float, much: float) -> None:
    noise = np.random.default_rng(seed).uniform(-1, 1, CHAMPION.shape)
    noise /= np.abs(noise).max()
    assert check.compared(made(), list(range(6)), CHAMPION + little * check.TOLERANCE * noise)[0] == "champion"
    assert check.compared(made(), list(range(6)), CHAMPION + much * check.TOLERANCE * noise)[0] != "champion"


def test_a_server_is_asked_about_the_probes_that_are_still_here(project: Project) -> None:
    promoted(project, CHAMPION, OTHER)
    with scoring(predicting(lambda count: CHAMPION[:count])) as server:
        assert check.inspect_server(project, "megu", f"{server.url}/invocations").says == "serves the champion (version 2)"
        ((path, _, body),) = server.asked
        dataset = arrays.load(project.data("photos"))
        assert path == "/invocations"
        assert body == {"instances": dataset.test.images[:6].tolist()}
        assert dataset.test.ids[0].decode() not in (project.dossiers / RUN).glob("probes-*").__next__().read_text()
    # What a purge took is not asked about any more, and the others still tell.
    test, train = (
        (np.asarray(part.images[rest]), np.asarray(part.labels[rest]))
        for part, rest in ((dataset.test, slice(2, None)), (dataset.train, slice(None)))
    )
    arrays.save(project.data("photos"), name="photos", classes=dataset.classes, train=train, test=test)
    with scoring(predicting(lambda count: OTHER[2 : count + 2])) as server:
        seen = check.inspect_server(project, "megu", server.url)
        assert (seen.verdict, seen.says, len(server.asked[0][2]["instances"])) == ("before", "still serves version 1", 4)


Answer = Callable[[Any, Any], None]
FOREIGN: dict[str, tuple[Answer, str]] = {
    "HTML": (said(200, "<html>hello</html>"), "what answers at {} is no scoring server of a classifier"),
    "JSON of another program": (said(200, '{"status": "ok"}'), "what answers at {} is no scoring server of a classifier"),
    "a number": (said(200, "7"), "what answers at {} is no scoring server of a classifier"),
    "too few": (predicting(lambda count: CHAMPION[:1]), "what answers at {} is no scoring server of a classifier"),
    "labels": (predicting(np.arange), "what answers at {} is no scoring server of a classifier"),
    "no numbers": (said(200, '{"predictions": [["x"]]}'), "what answers at {} is no scoring server of a classifier"),
    "not finite": (predicting(lambda count: np.full((count, 4), np.nan)), "what answers at {} is no scoring server of a classifier"),
    "deep": (said(200, "[" * 200_000), "what answers at {} is no scoring server of a classifier"),
    "not UTF-8": (said(200, b"\xff\xfe\xff"), "what answers at {} is no scoring server of a classifier"),
    "500": (said(500, "Traceback"), "{} answers 500, not with predictions"),
    "404": (said(404, "no"), "{} answers 404, not with predictions"),
    "elsewhere": (said(302, "", Location="http://127.0.0.1:9/"), "{} answers 302, not with predictions"),
    "a login": (said(401, "who are you"), "{} refuses the login (401)"),
    "no end": (for_ever(0), "the answer of {} does not end (more than 2,000,000 bytes)"),
    "byte by byte": (for_ever(0.05), "{} has not answered in 1 s"),
}  # fmt: skip


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_no_scoring_server_is_one_line(case: str, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    promoted(project, CHAMPION, OTHER)
    monkeypatch.setattr(check, "MOST", 2_000_000)
    answer, says = FOREIGN[case]
    began = time.monotonic()
    with scoring(answer) as server:
        seen = check.inspect_server(project, "megu", server.url, 1.0)
    assert (seen.verdict, seen.says) == ("unknown", f"cannot tell: {says.format(server.url)}")
    assert time.monotonic() - began < 5


def silent(send: bytes) -> tuple[str, socket.socket]:
    """A listener that takes a connection, sends some bytes and goes on as if there were more."""
    listener = socket.create_server((HOST, 0))

    def accept() -> None:
        taken, _ = listener.accept()
        taken.sendall(send)
        time.sleep(3)
        taken.close()

    threading.Thread(target=accept, daemon=True).start()
    return f"{HOST}:{listener.getsockname()[1]}", listener


def test_a_server_that_is_away_or_speaks_otherwise_is_one_line(project: Project) -> None:
    promoted(project, CHAMPION, OTHER)
    nobody = f"http://{HOST}:{free_port()}"
    assert check.inspect_server(project, "megu", nobody, 1.0).says.startswith(f"cannot tell: {nobody} does not answer: ")
    for send, end in ((b"", "has not answered in 1 s"), (b"SSH-2.0-OpenSSH\r\n\r\n", "does not answer: ")):
        where, listener = silent(send)
        says = check.inspect_server(project, "megu", f"http://{where}", 1.0).says
        assert says.startswith(f"cannot tell: http://{where} {end}")
        assert "\n" not in says
        listener.close()
    with scoring(said(200, "")) as server:
        tls = server.url.replace("http:", "https:")
        says = check.inspect_server(project, "megu", tls, 1.0).says
        assert says.startswith(f"cannot tell: {tls} does not answer: ")
        assert "SSL" in says
    says = check.inspect_server(project, "megu", "http://no-such-host.invalid", 5.0).says
    assert says.startswith("cannot tell: http://no-such-host.invalid does not answer: ")


def test_a_certificate_that_nobody_vouches_for_is_one_line(project: Project, tmp_path: Path) -> None:
    promoted(project, CHAMPION, OTHER)
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
    form = serialization.Encoding.PEM
    secret = key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "server.pem").write_bytes(secret + made.sign(key, hashes.SHA256()).public_bytes(form))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    listener = socket.create_server((HOST, 0))

    def accept() -> None:
        with contextlib.suppress(OSError):
            context.wrap_socket(listener.accept()[0], server_side=True)

    threading.Thread(target=accept, daemon=True).start()
    url = f"https://{HOST}:{listener.getsockname()[1]}"
    says = check.inspect_server(project, "megu", url, 5.0).says
    listener.close()
    assert says.startswith(f"cannot tell: {url} does not answer: ")
    assert "CERTIFICATE_VERIFY_FAILED" in says


def test_the_token_of_the_environment_is_sent_and_not_said(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    promoted(project, CHAMPION, OTHER)
    monkeypatch.setenv(check.TOKEN, "planted-token")
    with scoring(said(403, "planted-token")) as server:
        says = check.inspect_server(project, "megu", server.url).says
        assert server.asked[0][1]["Authorization"] == "Bearer planted-token"
    assert says == f"cannot tell: {server.url} refuses the login (403)"


def test_without_what_it_takes_nothing_is_told_and_why_is(project: Project) -> None:
    url = f"http://{HOST}:{free_port()}"
    assert check.inspect_server(project, "megu", url).says == "cannot tell: no version of megu has been promoted"
    promoted(project, CHAMPION, OTHER)
    (path,) = (project.dossiers / RUN).glob("probes-*.json")
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"before":"1"', b'"before":"3"'))
    assert check.inspect_server(project, "megu", url).says == f"cannot tell: {project.relative(path)} does not match the ledger"
    path.unlink()
    assert "cannot be read (No such file or directory)" in check.inspect_server(project, "megu", url).says
    path.write_bytes(content)
    kept = (project.keys / "commitments.key").read_bytes()
    (project.keys / "commitments.key").unlink()
    assert check.inspect_server(project, "megu", url).says == "cannot tell: the key of the commitments is not here"
    (project.keys / "commitments.key").write_bytes(kept)
    shutil.rmtree(project.data("photos"))
    assert check.inspect_server(project, "megu", url).says == "cannot tell: data/photos is not here"
    project.ledger.append(INTENDED, "megu", {"version": "3"})
    assert check.inspect_server(project, "megu", url).says == "cannot tell: a promotion is under way, or was interrupted"
    assert json.loads(json.dumps(check.inspect_server(project, "megu", url).to_json()))["champion"] == "2"


def test_a_champion_without_probes_says_what_is_missing(project: Project) -> None:
    moved(project)
    seen = check.inspect_server(project, "megu", f"http://{HOST}:{free_port()}")
    assert (seen.verdict, seen.version) == ("unknown", "2")
    assert seen.says.startswith("cannot tell: ")


def test_an_address_of_the_environment_is_read_and_its_path_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_HOOK", "https://hooks.example.org/T0/secret")
    assert http.address("$TEAM_HOOK", "promotion.webhook") == "https://hooks.example.org/T0/secret"
    assert http.origin("https://hooks.example.org/T0/secret") == "https://hooks.example.org"
    assert http.address("http://a/b", "promotion.webhook") == "http://a/b"
