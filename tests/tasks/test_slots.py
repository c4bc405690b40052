"""Every flow that computes takes the slot of the GPU it computes on, before it computes."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BENCH = "name: b\nbase: {device: DEVICE}\nseeds: [0]\ntargets: [{classes: [Bag]}]\nmethods: [finetune]\n"


class Taken(Exception):
    pass


@pytest.mark.parametrize("name", ["unlearn", "label", "bench"])
def test_the_slot_of_the_device_is_taken(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = importlib.import_module(f"flows.{name}")

    @contextmanager
    def taken(device: str) -> Iterator[None]:
        raise Taken(device)
        yield

    def nothing(*_: Any) -> None: ...

    monkeypatch.setattr(flow, "gpu", taken)
    monkeypatch.setattr("flows.steps.say_without_commit", nothing)
    monkeypatch.setenv("MEGU_PROJECT", str(tmp_path))
    (tmp_path / "params.yaml").write_text("device: cpu\n")
    (tmp_path / "bench.yaml").write_text(BENCH.replace("DEVICE", "cpu"))
    if name == "bench":
        monkeypatch.setattr(flow, "preflight", nothing)
        arguments = [str(tmp_path / "bench.yaml")]
    else:
        monkeypatch.setattr(flow.inputs, "labeler_ready", nothing)
        arguments = []
    with pytest.raises(Taken, match="cpu"):
        inspect.unwrap(getattr(flow, name).fn)(*arguments)
