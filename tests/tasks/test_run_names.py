from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.prefect import run_names

PARAMS = "data: {name: made-up}\nforget: {scenario: class, classes: [Ankle boot]}\nregistry: {name: digits}\n"


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.setenv("MEGU_PROJECT", str(tmp_path))
    return lambda **parameters: monkeypatch.setattr(run_names, "flow_run", SimpleNamespace(parameters=parameters))


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        (run_names.forget, {"params": "params.yaml", "settings": None}, "forget Ankle boot"),
        (run_names.forget, {"settings": ["forget.classes=[a, b]"]}, "forget a, b"),
        (run_names.forget, {"settings": ["forget.scenario=random", "forget.classes=[]", "forget.count=7"]}, "forget 7 random images"),
        (run_names.forget, {"settings": ["forget.nothing=1"]}, "unlearn"),
        (run_names.forget, {"params": "absent.yaml"}, "unlearn"),
        (run_names.label, {}, "label made-up"),
        (run_names.bench, {"file": "/somewhere/fashion.yaml"}, "bench fashion"),
        (run_names.promote, {"version": "3"}, "promote digits version 3"),
        (run_names.promote, {"version": None}, "promote the challenger"),
    ],
)  # fmt: skip
def test_a_run_is_called_after_what_it_does(called: Any, name: Any, parameters: dict[str, Any], said: str) -> None:
    called(**parameters)
    assert name() == said


def test_a_request_for_very_many_classes_has_a_short_name(called: Any) -> None:
    called(settings=[f"forget.classes={[f'class {number}' for number in range(99)]}"])
    assert len(run_names.forget()) == run_names.LONGEST
