"""Where an Ollama server is, and what else can answer there: the right server, or one line with the fix."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from ollama_server import FakeOllama, Reply, invalid_duration, vision
from ports import free_port
from test_labeling_ollama import DIGEST, JUDGING, K, Labels, labeler, question, refused, server

from megu.cli import main as cli
from megu.core.errors import MeguError
from megu.core.project import Project
from megu.labeling.ollama.params import Connection
from megu.labeling.ollama.server import Server, address, explained, is_here

__all__ = ["labeler", "server"]

LOCAL = "http://127.0.0.1:11434"
#: What is written -> the server that it names.
ADDRESSES = {
    "::1": "http://[::1]:11434",
    "[::1]": "http://[::1]:11434",
    "[::1]:4000": "http://[::1]:4000",
    "::": "http://[::1]:11434",
    "fe80::1": "http://[fe80::1]:11434",
    "http://[::1]": "http://[::1]:80",
    "host": "http://host:11434",
    "host:4000": "http://host:4000",
    ":11434": LOCAL,
    "": LOCAL,
    "  127.0.0.1  ": LOCAL,
    '"127.0.0.1"': LOCAL,
    "' 127.0.0.1:11434 '": LOCAL,
    "0.0.0.0": LOCAL,
    "http://h": "http://h:80",
    "https://h": "https://h:443",
    "https://h/ollama": "https://h:443/ollama",
    "http://h:11434/": "http://h:11434",
    "localhost": "http://localhost:11434",
    "büro": "http://xn--bro-hoa:11434",
    "große.kiste": "http://xn--groe-xna.kiste:11434",
    "my_box.lan.": "http://my_box.lan.:11434",
    "::ffff:127.0.0.1": LOCAL,
    "http://[::ffff:127.0.0.1]:80/ollama": "http://127.0.0.1:80/ollama",
}
#: What is no address -> why.
REFUSED = {
    "h:99999": "a port is a number from 1 to 65535",
    "h:0": "a port is a number from 1 to 65535",
    "h:abc": "a port is a number from 1 to 65535",
    "h:٣": "a port is a number from 1 to 65535",
    "h:": "the port is missing",
    "*": "its name is not one",
    "*:11434": "its name is not one",
    "tcp://h:11434": "http or https, not tcp",
    "unix:///var/run/ollama.sock": "http or https, not unix",
    "/var/run/ollama.sock": "a file or a socket is not a server",
    "h:" + "1" * 5000: "a port is a number from 1 to 65535",
    "user:pw@h": "a login is not supported",
    "user:pw@h:1": "a login is not supported",
    "http://user:pw@h": "a login is not supported",
    "http://user:p/w@h": "a login is not supported",
    "://h": "http or https, not no scheme",
    "a..b": "its name is not one",
    "-a": "its name is not one",
    "h" * 64: "its name is not one",
    "h." * 130: "its name is not one",
    "“h”": "its name is not one",
    "h\uff0fx": "its name is not one",
    "a b": "its name is not one",
    "[::1": "bracket",
    "[::1]x": "bracket",
    "[nonsense]": "colons of an IPv6 address but is not one",
    "1:2:3": "colons of an IPv6 address but is not one",
    "http://h:11434/v1": "leave /v1 out",
    "h:11434/api": "leave /api out",
    "http://h?x=1": "its name is not one|more than",
    "http://h/x?y": "more than a server and a path",
    "fe80::1%eth0": "zone",
    "...": "its name is not one",
    "\x1b[31mh": "its name is not one",
}


@pytest.mark.parametrize("written", ADDRESSES)
def test_an_address_that_ollama_accepts(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", written)
    assert address(None) == ADDRESSES[written]
    httpx.URL(ADDRESSES[written])


@pytest.mark.parametrize("written", REFUSED, ids=lambda written: written[:20])
def test_what_is_no_address_is_refused_in_one_line_with_its_reason(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", written)
    with pytest.raises(MeguError, match=REFUSED[written]) as caught:
        address(None)
    said = str(caught.value)
    assert said.isprintable()
    assert said.startswith("OLLAMA_HOST = ")
    assert "write it as 127.0.0.1:11434" in said
    assert "pw" not in said, "a login is shown to nobody"
    assert "p/w" not in said


HOST = st.text(st.sampled_from("abé“\uff0f1:[]./@%*_- \\?#\x1b\u202eü٣") | st.characters(codec="utf-8"), max_size=12)
#: Longer than a host that is tried, so that no host contains it by chance.
PASSWORD = "never-shown-to-anybody"
BEGINS = st.sampled_from(["", "http://", "https://", "tcp://", "[", "::", f"user:{PASSWORD}@", f"http://user:{PASSWORD}@"])


@settings(max_examples=300)
@given(BEGINS, HOST, st.sampled_from(["", ":1", ":65536", "/", "/x", "]", "]:80"]))
def test_whatever_is_written_is_an_address_that_the_client_takes_or_one_line(begin: str, host: str, end: str) -> None:
    try:
        found = address(f"{begin}{host}{end}".replace("\0", "") or "h")
    except MeguError as error:
        found, said = "", str(error)
    if not found:
        assert said.isprintable()
        assert PASSWORD not in said
        return
    asked = httpx.URL(found)
    assert asked.host
    assert asked.port or found.endswith((":80", ":443")) or ":80/" in found or ":443/" in found
    assert str(Server("m", Connection(host=found)).client(1.0)._client.base_url).startswith(asked.scheme)
    assert address(found) == found, "an address that was read once is read the same again"


def test_a_mapped_address_of_this_machine_is_this_machine() -> None:
    assert is_here(address("::ffff:127.0.0.1"))
    assert is_here(address("localhost."))
    assert not is_here(address("::ffff:10.0.0.1"))


def test_the_official_client_is_kept_from_an_address_that_it_cannot_read() -> None:
    """It reads OLLAMA_HOST when it is imported; ours is asked with the address that was checked."""
    program = (
        "import os\nfrom megu.labeling.ollama.server import Server, official\nfrom megu.labeling.ollama.params import Connection\n"
        "import megu.config.tree, tasks.ollama, sys\nassert 'ollama' not in sys.modules\n"
        "official()\nassert os.environ['OLLAMA_HOST'] == 'h:99999'\n"
        "print(Server('m', Connection(host='127.0.0.1:9')).client(1.0)._client.base_url)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"OLLAMA_HOST": "h:99999"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "http://127.0.0.1:9", done.stderr


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text("{}")
    monkeypatch.setenv("MEGU_PROJECT", str(tmp_path))
    return tmp_path


def call(*arguments: str) -> int:
    return cli.guarded(lambda: cli.app(list(arguments), standalone_mode=False))


@pytest.mark.parametrize("written", [*REFUSED, *ADDRESSES], ids=lambda written: written[:20])
def test_on_the_command_line_an_address_is_right_or_one_line_and_matters_to_no_other_labeler(
    written: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def nobody(asking: Server, ask: object) -> dict[str, Any]:
        asked.append(asking.url)
        raise MeguError("nobody is there", "ollama serve")

    monkeypatch.setattr(Server, "_told", nobody)
    monkeypatch.setenv("OLLAMA_HOST", written)
    for command in ("run", "label"):
        assert call(command, "--dry-run", "--json") == 0
        assert json.loads(capsys.readouterr().out)["labeling"] is None
        code = call(command, "--dry-run", "--quiet", "--set", "labeling.kind=ollama")
        said = capsys.readouterr().err
        assert code == (2 if written in REFUSED else 0), said
        if written in REFUSED:
            assert call(command, "--quiet", "--set", "labeling.kind=ollama") == 2
            for line in (said, capsys.readouterr().err):
                assert line.count("\n") == 1
                assert "is no address: " in line
    assert set(asked) == ({ADDRESSES[written]} if written in ADDRESSES else set())
    assert not (root / ".megu" / "answers").exists()


# --- what else can answer --------------------------------------------------------------------------------------------------------


@contextmanager
def answering(status: int, content: bytes, headers: dict[str, str] | None = None) -> Iterator[str]:
    """A web server that says one thing."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{other.server_address[1]}"
        other.shutdown()


ANSWERS = {
    "a page": (200, b"<html>hello</html>", None, "is no Ollama server: its answer is not JSON"),
    "another path": (404, b"404 page not found", None, "is no Ollama server"),
    "another JSON": (200, b"[1, 2]", None, "is no Ollama server"),
    "an error page": (404, b"<html>Not Found</html>", None, "is no Ollama server"),
    "a login": (401, b"", None, "wants a login (401)"),
    "a redirect": (301, b"", {"Location": "https://elsewhere/"}, "redirects elsewhere (301): name the address that it"),
    "HTTP to HTTPS": (400, b"Client sent an HTTP request to an HTTPS server.", None, "speaks HTTPS: write https://127.0.0.1:"),
    "HTTP to HTTPS, as another server says it": (
        400,
        b"<html>The plain HTTP request was sent to HTTPS port</html>",
        None,
        "speaks HTTPS: write https://127.0.0.1:",
    ),
    "a method": (405, b"", None, "is no Ollama server"),
    "an error with status 200": (200, b'{"error": "Unexpected endpoint or method"}', None, "is no Ollama server"),
    "text in JSON": (200, b'"3.4.0"', None, "is no Ollama server: its answer is not one of Ollama's"),
    "a version that is a number": (200, b'{"version": 3}', None, "is no Ollama server"),
    "models that are none": (200, b'{"version": "1", "models": ["a"]}', None, "is no Ollama server"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_something_else_at_the_address(labeler: Labels, case: str) -> None:
    status, content, headers, words = ANSWERS[case]
    with answering(status, content, headers) as host:
        said = refused(labeler(host=host))
        assert words in said
        # The list of models is asked for first where a kept labeling is looked for.
        with pytest.raises(MeguError) as caught:
            Server("gemma3:4b", Connection(host=host)).find()
    assert words.partition(":")[0] in str(caught.value)


def test_https_to_a_server_that_speaks_http(labeler: Labels, server: FakeOllama) -> None:
    said = refused(labeler(host=f"https://{server.host}", allow_remote=True))
    assert f"does not speak HTTPS: write http://{server.host}" in said
    with pytest.raises(MeguError, match="does not speak HTTPS"):
        Server("gemma3:4b", Connection(host=f"https://{server.host}")).find()


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server that speaks TLS alone, with a certificate that nobody knows."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None: ...

    with Quiet(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        other.socket = context.wrap_socket(other.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=other.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{other.server_address[1]}"
        other.shutdown()


@pytest.mark.parametrize("ask", [Server.version, Server.find])
def test_a_server_that_speaks_tls(encrypted: str, ask: Callable[[Server], object]) -> None:
    with pytest.raises(MeguError, match=r"is not trusted here: set SSL_CERT_FILE"):
        ask(Server("m", Connection(host=f"https://{encrypted}")))
    with pytest.raises(MeguError, match=f"broke .*if it speaks HTTPS, write https://{encrypted}"):
        ask(Server("m", Connection(host=encrypted)))


@pytest.mark.parametrize("ask", [Server.version, Server.find])
def test_a_name_that_nobody_knows(ask: Callable[[Server], object], monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(MeguError, match=r"^the name nobody\.example is not known here: check labeling\.host and OLLAMA_HOST$"):
        ask(Server("m", Connection(host="nobody.example")))


def test_nobody_on_another_machine_is_started_there() -> None:
    said = str(explained(ConnectionError(), "http://gpu:11434", "m"))
    assert said == "there is no Ollama server at http://gpu:11434: OLLAMA_HOST=0.0.0.0 ollama serve, on that machine"


def test_a_model_whose_name_has_a_page_in_it_is_pulled() -> None:
    error = ollama.ResponseError(json.dumps({"error": "model 'pagemodel' not found"}), 404)
    assert str(explained(error, "http://h:1", "pagemodel")).endswith("has no model pagemodel: ollama pull pagemodel")


@pytest.mark.parametrize("duration", ["soon", "", "30 m", "1d", "m", "--1", "1.5.2s", "٣m", "1.5", "+5"])
def test_a_keep_alive_that_is_no_duration_is_refused_by_name(duration: str) -> None:
    with pytest.raises((MeguError, ValueError), match="keep_alive"):
        Connection(keep_alive=duration)


@pytest.mark.parametrize("duration", ["30m", "-1", "0", "1h30m", "1.5h", ".5h", "-1m", "500ms", "5μs", "3600"])
def test_a_keep_alive_is_sent_as_the_server_reads_it(duration: str) -> None:
    """Seconds as a number: text without a unit is refused there."""
    connection = Connection(keep_alive=duration)
    assert not invalid_duration(connection.keep_loaded)
    assert str(connection.keep_loaded) == connection.keep_alive == duration


def test_a_model_that_is_kept_for_ever(labeler: Labels, server: FakeOllama) -> None:
    labeler(keep_alive="-1").judge(question())
    assert {call["keep_alive"] for call in [*server.loads, *server.counts, *server.chats]} == {-1}


def test_a_keep_alive_that_the_server_refuses_is_said_to_be_why(labeler: Labels, server: FakeOllama) -> None:
    server.fault = lambda number, body: Reply(vision("invalid keep_alive"), 400)
    assert 'does not take labeling.keep_alive (time: invalid duration "soon"): write it as 30m' in refused(labeler())


# --- in the middle ---------------------------------------------------------------------------------------------------------------


def test_a_server_that_is_gone_for_good_says_how_many_answers_are_kept(labeler: Labels, server: FakeOllama) -> None:
    server.fault = lambda number, body: Reply({}, cut=0) if number >= 11 else None
    assert "11 answers are kept" in refused(labeler(concurrency=1))
    said = refused(labeler(host="127.0.0.1:9", retries=0))
    assert (
        "there is no Ollama server at http://127.0.0.1:9; 11 answers are kept: ollama serve; then run again, none of them is asked twice"
        in said
    )


def test_a_server_that_is_gone_when_a_labeling_goes_on_says_so_too(
    labeler: Labels, server: FakeOllama, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fault = lambda number, body: Reply({}, cut=0) if number >= 11 else None
    refused(replace(labeler(concurrency=1), folder=Project(root).answers))
    settings = ["--quiet", "--set", "labeling.kind=ollama", "--set", f"labeling.host={server.host}"]
    server.capabilities = ("completion",)
    assert call("label", *settings) == 2
    said = capsys.readouterr().err
    assert "gemma3:4b cannot see images; 11 answers are kept: choose a vision model" in said
    assert said.endswith("; then run again, none of them is asked twice\n")
    settings[-1] = "labeling.host=127.0.0.1:9"
    assert call("label", *settings) == 2
    said = capsys.readouterr().err
    assert said.startswith("megu: there is no Ollama server at http://127.0.0.1:9; 11 answers are kept: ollama serve; ")
    assert said.count("\n") == 1


def test_a_server_that_is_killed_and_started_again_is_asked_for_the_rest(labeler: Labels) -> None:
    port = free_port()
    program = [sys.executable, "-m", "tests.support.ollama_server", "--port", str(port), "--made-up", str(K), "--delay", "0.05"]
    root = Path(__file__).parents[2]

    def start() -> subprocess.Popen[str]:
        child = subprocess.Popen(
            program, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert "serving" in child.stdout.readline()
        return child

    judging = replace(JUDGING, min_own=0, min_repeat=0, max_position=1, min_symmetry=-1)
    asked = labeler(judging, host=f"127.0.0.1:{port}", retries=100, backoff=0.1)
    about = replace(question(), concepts=tuple(f"class_{k}" for k in range(K)))
    path = asked.folder / f"{DIGEST[:24]}.jsonl"
    first = start()
    with ThreadPoolExecutor(1) as pool:
        judged = pool.submit(asked.judge, about)
        while not path.is_file() or len(path.read_bytes().splitlines()) < 10:
            assert not judged.done()
            time.sleep(0.01)
        first.kill()
        first.wait()
        second = start()
        record = judged.result(timeout=120).record
        second.kill()
        second.wait()
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == record["asked"] == asked.new, "no answer that was kept was asked for again"
    assert record["retried"] > 0
    assert record["abstained"] == 0


def test_a_model_deleted_in_the_middle_names_the_command_that_brings_it_back(labeler: Labels, server: FakeOllama) -> None:
    def delete(number: int, body: Any) -> Reply | None:
        if number < 11:
            return None
        server.model = "another:latest"
        return Reply({"error": "model 'gemma3:4b' not found"}, 404)

    server.fault = delete
    said = refused(labeler(concurrency=1))
    assert "has no model gemma3:4b; 11 answers are kept: ollama pull gemma3:4b; then run again" in said
    said = refused(labeler(concurrency=1))
    assert "has no model gemma3:4b; 11 answers are kept: ollama pull gemma3:4b" in said


# --- what was measured -----------------------------------------------------------------------------------------------------------


def test_how_scores_were_made_is_counted_in_its_own_words(labeler: Labels, server: FakeOllama) -> None:
    """Soft, hard because the server gave nothing, hard because the words were not listed: three different lines."""

    def mixed(number: int, body: Any) -> Reply | None:
        if "properties" in body["format"] or number % 3 == 0:
            return None
        answer = server._said(body, server.sight(base64.b64decode(body["messages"][-1]["images"][0])))
        if number % 3 == 1:
            answer.pop("logprobs")
        else:
            # The quote's own list has False in it, as recorded; the answer's has neither word.
            answer["logprobs"][1]["top_logprobs"] = [{"token": "Yes", "logprob": -0.1}, {"token": "No", "logprob": -3.0}]
        return Reply(answer)

    server.fault = mixed
    asked = labeler(
        replace(JUDGING, strategy="pairwise", min_own=0, min_repeat=0, min_symmetry=-1, max_position=1), concurrency=1
    )
    scoring = asked.judge(question()).record["scoring"]
    assert set(scoring) == {"soft", "hard", "unlisted"}
    kind = asked.identity.kind
    assert f"{scoring['soft']} soft scores, " in kind
    assert f"{scoring['hard']} hard 0/1 scores (the server gave no log-probabilities)" in kind
    assert f"{scoring['unlisted']} hard 0/1 scores (True and False were not among the 20 likeliest tokens)" in kind
