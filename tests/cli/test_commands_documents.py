"""What is made from a dossier, and what is said of one that is not whole, through the command line: one clear line each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import dossier_fixtures as made
import pytest
from cryptography.hazmat.primitives import serialization

from megu.cli import main as cli
from megu.core.files.store import canonical_json
from megu.lineage.dossier import FORMAT, MAIN, RECORDS, SEAL, sha256
from megu.lineage.export import EXPORTERS
from megu.lineage.keys import public_of, sign

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command line outside of any project: code, what it prints, what it complains of."""
    monkeypatch.delenv("MEGU_PROJECT", raising=False)
    monkeypatch.chdir(tmp_path)

    def called(*arguments: str) -> tuple[int, str, str]:
        code = cli.guarded(lambda: cli.app(list(arguments), standalone_mode=False))
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return called


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made.written(tmp_path / "dossier", made.found())


@pytest.fixture
def public(tmp_path: Path) -> str:
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "team.pub").write_bytes(made.SIGNING.public_key().public_bytes(*form))
    return str(tmp_path / "team.pub")


def sealed_again(folder: Path, content: bytes) -> None:
    """Another ``dossier.json``, sealed and signed as if it were right."""
    (folder / MAIN).write_bytes(content)
    seal = {
        "format": 1,
        "seal": sha256(content),
        "signed": True,
        "public": public_of(made.SIGNING),
        "signature": sign(made.SIGNING, content),
    }
    (folder / SEAL).write_bytes(canonical_json(seal))


def changed(folder: Path, **fields: object) -> None:
    sealed_again(folder, canonical_json({**json.loads((folder / MAIN).read_bytes()), **fields}))


def with_records(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    """Other records, and a dossier that names them."""
    lines = [json.loads(line) for line in (folder / RECORDS).read_bytes().splitlines()]
    change(lines[0])
    content = b"".join(canonical_json(line) + b"\n" for line in lines)
    (folder / RECORDS).write_bytes(content)
    changed(folder, files={**json.loads((folder / MAIN).read_bytes())["files"], RECORDS: sha256(content)})


def cut(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:-30])


def signature_of_another(folder: Path) -> None:
    seal = json.loads((folder / SEAL).read_bytes())
    (folder / SEAL).write_bytes(canonical_json({**seal, "signature": sign(made.SIGNING, b"something else")}))


@pytest.mark.parametrize(
    ("harm", "code", "line"),
    [
        (lambda at: changed(at, more=1), 1, "✗ dossier: dossier.json: the field more is unknown"),
        (
            lambda at: changed(at, scope={**made.main_of(made.found())["scope"], "who": "x"}),
            1,
            "✗ dossier: dossier.json: the field scope.who is unknown",
        ),
        (
            lambda at: with_records(at, lambda line: line.update(more=1)),
            1,
            "✗ dossier: records.jsonl, line 1 has the unknown field more",
        ),
        (lambda at: cut(at, MAIN), 1, "✗ dossier: dossier.json is cut off or not JSON ("),
        (lambda at: cut(at, SEAL), 1, "✗ dossier: seal.json is cut off or not JSON"),
        (lambda at: cut(at, RECORDS), 1, "✗ dossier: records.jsonl has changed"),
        (signature_of_another, 1, "✗ signature: it is not a signature of dossier.json by the key "),
        (
            lambda at: changed(at, format=FORMAT + 1),
            2,
            f"? dossier: dossier.json has format {FORMAT + 1}, and this megu knows up to {FORMAT}: install a newer megu",
        ),
        (
            lambda at: with_records(at, lambda line: line.update(format=2)),
            2,
            "? dossier: records.jsonl, line 1 has format 2, and this megu knows up to 1: install a newer megu",
        ),
    ],
)
def test_what_is_wrong_with_a_dossier_is_one_clear_line(
    call: Call, folder: Path, public: str, harm: Callable[[Path], None], code: int, line: str
) -> None:
    harm(folder)
    found, out, _ = call("verify", str(folder), "--key", public)
    assert found == code
    assert any(said.startswith(line) for said in out.splitlines()), out


def test_an_mlflow_server_that_is_not_there_is_one_clear_line(
    call: Call, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, public: str
) -> None:
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, out, err = call("verify", str(folder), "--key", public)
    assert code == 2
    assert "? run in MLflow: the MLflow server at http://127.0.0.1:9 does not answer" in out.splitlines()
    assert "secret" not in out + err


def test_a_dossier_that_is_not_there_or_not_whole_makes_no_page(call: Call, folder: Path) -> None:
    code, out, err = call("certificate", "nobody")
    assert (code, out) == (2, "")
    assert err == "megu: there is no dossier of nobody: name a finished run's MLflow id, a models:/name/version or a folder\n"
    cut(folder, MAIN)
    for command in ("certificate", "export"):
        code, out, err = call(command, str(folder))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"the dossier of {folder} cannot be used (dossier: dossier.json is cut off" in err
    assert not list(folder.parent.glob("*.html"))


def test_a_certificate_is_made_of_a_copied_dossier_alone(call: Call, folder: Path, public: str) -> None:
    code, out, _ = call("certificate", str(folder), "--key", public, "--out", "made/c.html")
    assert code == 0
    page = (folder.parent / "made" / "c.html").read_text()
    assert made.RUN in page
    assert out.startswith("made/c.html: Forgotten, as measured. On ")
    assert "none differs" in out


def test_a_purge_document_beside_a_dossier_is_shown(call: Call, folder: Path, public: str) -> None:
    (folder / "purge.json").write_bytes(made.purge_document(("data set", "ERASED", "12 erased")))
    code, _, _ = call("certificate", str(folder), "--key", public)
    assert code == 0
    assert "<strong>ERASED</strong>" in (folder.parent / "certificate.html").read_text()


def test_exports_are_written_where_they_are_asked_for(call: Call, folder: Path) -> None:
    code, out, _ = call("export", str(folder), "--out", "there")
    assert code == 0
    assert len(out.splitlines()) == len(list((folder.parent / "there").iterdir())) == len(EXPORTERS)
    assert call("export", str(folder), "--format", "prov", "--out", "one")[0] == 0
    assert [path.name for path in (folder.parent / "one").iterdir()] == ["prov.json"]
    code, _, err = call("export", str(folder), "--format", "rdf")
    assert (code, err.count("\n")) == (2, 1)


def test_an_export_inside_a_project_is_signed_with_its_key(call: Call, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    assert call("keys", "create")[0] == 0
    assert call("export", str(folder), "--format", "intoto", "--out", "there")[0] == 0
    assert len(list((tmp_path / "there").iterdir())) == 2
