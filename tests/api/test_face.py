"""The public face: its names, their arguments and what importing it costs are promises."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import megu

REPOSITORY = Path(__file__).resolve().parents[2]

#: Name -> its arguments; a star begins those that are given by name alone, a question mark ends one that may be left out.
FACE = {
    "Dataset.load": "path",
    "Dataset.of": "train test classes? * name? mean? std?",
    "Project": "path?",
    "Project.run": "self settings? * params?",
    "Project.request": "self * classes? subclasses? ids? files? basis requester reason? due? reference? data?",
    "Project.promote": "self version? * approver? rationale? evidence?",
    "Project.verify": "self target * replay? sealed?",
    "evaluate": "model data split reference? * original? calibration? device?",
    "forget": "data * classes? subclasses? ids? files? count? seed?",
    "gate": "evaluation * champion? **thresholds",
    "labelers": "",
    "methods": "",
    "unlearn": "model * forget retain method? labeler? perturbing? noise? calibration? recipe? fresh? seed? device? **params",
}


def arguments(function: object) -> str:
    """As `FACE` has them."""
    said: list[str] = []
    for parameter in inspect.signature(function).parameters.values():  # type: ignore[arg-type]
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in said:
            said.append("*")
        optional = "" if parameter.default is parameter.empty else "?"
        said.append(f"**{parameter.name}" if parameter.kind is parameter.VAR_KEYWORD else parameter.name + optional)
    return " ".join(said)


def found(name: str) -> object:
    owner, _, inner = name.partition(".")
    return getattr(getattr(megu, owner), inner) if inner else getattr(megu, owner)


def test_these_names_are_public_and_no_others() -> None:
    assert megu.__all__ == sorted({name.partition(".")[0] for name in FACE})
    assert set(dir(megu)) == {*megu.__all__, "__version__"}
    with pytest.raises(AttributeError, match="no attribute 'forgot'"):
        _ = megu.forgot


@pytest.mark.parametrize("name", FACE)
def test_each_has_these_arguments_and_says_what_it_does(name: str) -> None:
    assert arguments(found(name)) == FACE[name]
    assert len(inspect.getdoc(found(name)) or "") > 30


def test_importing_it_imports_nothing_else() -> None:
    program = "import sys, megu; print(*(name for name in ('numpy', 'torch', 'prefect', 'mlflow') if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_methods_and_labelers_are_listed_by_name() -> None:
    assert "megu" in megu.methods()
    assert set(megu.labelers()) == {"prototype", "ollama"}
