"""Servers that the environment names: absent, of another kind or version, behind a login, silent; each in one line with its fix."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from team_servers import MLFLOW, NAMES, PREFECT, SOUND, basic, serving

from megu.core.errors import MeguError
from megu.servers import addresses


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    for name in (addresses.PREFECT, addresses.MLFLOW, "http_proxy", *NAMES):
        monkeypatch.delenv(name, raising=False)


def test_servers_that_are_as_they_should_be() -> None:
    with serving(SOUND) as root:
        assert addresses.prefect(f"{root}/api/") == addresses.Found(f"{root}/api/", PREFECT)
        assert addresses.mlflow(root) == addresses.Found(root, MLFLOW)


#: The header that a server wants -> the settings that give it.
LOGINS: list[tuple[str, str, str, dict[str, str]]] = [
    ("prefect", "Authorization", basic("admin:pass:word"), {"PREFECT_API_AUTH_STRING": "admin:pass:word"}),
    ("prefect", "Authorization", "Bearer pnu_1", {"PREFECT_API_KEY": "pnu_1"}),
    ("prefect", "X-Gate", "7", {"PREFECT_CLIENT_CUSTOM_HEADERS": '{"X-Gate": "7"}'}),
    ("mlflow", "Authorization", basic("ann:word"), {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "word"}),
    ("mlflow", "Authorization", "Bearer token", {"MLFLOW_TRACKING_TOKEN": "token"}),
]


@pytest.mark.parametrize(("which", "header", "wanted", "settings"), LOGINS)
def test_the_logins_of_the_environment_are_used(
    which: str, header: str, wanted: str, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(SOUND, (header, wanted)) as root:
        address = f"{root}/api" if which == "prefect" else root
        with pytest.raises(MeguError, match=r"refuses the login \(401\)") as error:
            getattr(addresses, which)(address)
        assert next(iter(settings)) in error.value.fix or header == "X-Gate"
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        assert getattr(addresses, which)(address).version


def test_a_login_in_the_address_or_in_mlflow_s_own_file_is_used_and_never_shown(tmp_path: Path) -> None:
    with serving(SOUND, ("Authorization", basic("ann:s3cret/"))) as root:
        named = root.replace("://", "://ann:s3cret%2F@")
        assert addresses.prefect(f"{named}/api").url == f"{root}/api"
        assert addresses.mlflow(named).url == root
        (tmp_path / ".mlflow").mkdir()
        (tmp_path / ".mlflow" / "credentials").write_text(
            "[mlflow]\nmlflow_tracking_username = ann\nmlflow_tracking_password = s3cret/\n"
        )
        assert addresses.mlflow(root).version
    with pytest.raises(MeguError, match="no Prefect server answers") as error:
        addresses.prefect(f"{named}/api")
    assert "s3cret" not in str(error.value)


#: variable -> address or answers, what is said, what the fix has.
WRONG: list[tuple[str, str | dict[str, str], str, str]] = [
    ("prefect", "127.0.0.1:4200/api", "is not the address of a server", "export PREFECT_API_URL=http://"),
    ("prefect", "http://127.0.0.1:notaport/api", "is not the address of a server", "export PREFECT_API_URL"),
    ("prefect", "http://127.0.0.1:9/api", "no Prefect server answers at http://127.0.0.1:9/api", "unset PREFECT_API_URL"),
    ("prefect", "http://nowhere.invalid/api", "no Prefect server answers", "unset PREFECT_API_URL"),
    ("prefect", {"/api/admin/version": "<html>the pages"}, "is not Prefect's API", "http://HOST:4200/api"),
    ("prefect", {}, "is not Prefect's API", "http://HOST:4200/api"),
    ("prefect", {"/api/admin/version": '"2.20.1"'}, "is 2.20.1, and .* do not fit", "install Prefect 3"),
    ("mlflow", "http://127.0.0.1:9", "no MLflow server answers at http://127.0.0.1:9", "unset MLFLOW_TRACKING_URI"),
    (
        "mlflow",
        {"/version": "2.1.0", "/api/2.0/mlflow/experiments/search": "{}"},
        "is 2.1.0, and .* do not fit",
        "install MLflow 3",
    ),
    ("mlflow", {"/version": MLFLOW}, "is not MLflow's API", "http://HOST:5000"),
    ("mlflow", "./mlruns", "is a folder", "unset MLFLOW_TRACKING_URI"),
    ("mlflow", "file:///tmp/mlruns", "is a folder", "sqlite:////FOLDER/mlflow.db"),
    ("mlflow", "mysql+pymysql://ann:s3cret@127.0.0.1:9/x", "driver pymysql is not installed", "pip install pymysql"),
]


@pytest.mark.parametrize(("which", "server", "said", "fix"), WRONG)
def test_what_is_wrong_is_said_in_one_line_with_the_fix(
    which: str, server: str | dict[str, str], said: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(server if isinstance(server, dict) else {}) as root:
        address = server if isinstance(server, str) else f"{root}/api" if which == "prefect" else root
        monkeypatch.setenv(getattr(addresses, which.upper()), address)
        refuse = {"prefect": addresses.refuse_prefect, "mlflow": addresses.refuse_mlflow}[which]
        with pytest.raises(MeguError, match=said) as error:
            refuse()
    assert fix in error.value.fix
    assert "\n" not in str(error.value)
    assert "s3cret" not in str(error.value)


def test_another_name_for_the_host_is_told_from_a_refused_login() -> None:
    refusal = (403, "Invalid Host header - possible DNS rebinding attack detected")
    with (
        serving(SOUND, ("Authorization", "never"), refusal) as root,
        pytest.raises(MeguError, match="Invalid Host header") as error,
    ):
        addresses.mlflow(root)
    assert error.value.fix == f"start it with --allowed-hosts {root.removeprefix('http://')}"


def test_an_older_server_is_noted() -> None:
    with serving({"/api/admin/version": '"3.0.0"'}) as root:
        assert "older than" in addresses.prefect(f"{root}/api").note


def test_an_address_that_swallows_what_it_is_sent_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        with pytest.raises(MeguError, match="no answer in 0 s"):
            addresses.prefect(f"http://127.0.0.1:{silent.getsockname()[1]}/api", timeout=0.3)
        assert time.monotonic() - started < 5


def test_a_database_is_looked_at_as_the_project_s_own(tmp_path: Path) -> None:
    assert addresses.mlflow(f"sqlite:///{tmp_path}/new.db").note == "the first run makes it"
    (tmp_path / "bad.db").write_bytes(b"no database")
    with pytest.raises(MeguError, match="file is not a database"):
        addresses.mlflow(f"sqlite:///{tmp_path}/bad.db")


def test_nothing_named_is_nothing_refused() -> None:
    addresses.refuse_prefect()
    addresses.refuse_mlflow()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("prefect.toml", '[api]\nauth_string = "a:b"\n'),
        (".env", "PREFECT_API_KEY=pnu_1\n"),
        ("pyproject.toml", '[tool.prefect]\nclient.custom_headers = 1\n[tool.prefect.client]\ncustom_headers = "{}"\n'),
    ],
)
def test_a_login_where_only_prefect_looks_is_not_said_to_be_refused(
    file: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with serving(SOUND, ("Authorization", "never")) as root:
        (tmp_path / file).write_text("[other]\nkey = 1\n")
        with pytest.raises(MeguError, match="refuses the login"):
            addresses.prefect(f"{root}/api")
        (tmp_path / file).write_text(text)
        assert addresses.prefect(f"{root}/api").note.startswith("not checked")
