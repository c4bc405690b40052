"""A real ``mlflow models serve`` on loopback: seen to serve the version before the champion, reloaded, and seen to serve the champion."""

from __future__ import annotations

import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from ports import HOST, free_port
from scoring_server import CLASSES, RUN, moved, photos, promoted

from megu.core.project import Project
from megu.lineage.promoted.champions import CHAMPION
from megu.models import MODELS, build
from megu.serving import check, supervisor
from megu.tracking import Run, lineage, served
from megu.tracking.registry import Serving, register
from megu.training.weights import ModelInfo, load_model, save_weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ARCH = next(iter(MODELS))


def registered(project: Project, run: Run, folder: Path, seed: int) -> np.ndarray:
    """What a new version of "megu" answers about the first six test images."""
    dataset = photos(project.root)
    path = folder / f"{seed}.safetensors"
    save_weights(path, build(ARCH, len(CLASSES), 1, seed=seed), ModelInfo(ARCH, len(CLASSES), 1))
    images = np.asarray(dataset.test.images[:6])
    serving = Serving(CLASSES, dataset.mean, dataset.std)
    register(run, path, serving, images[:2], name="megu", alias="challenger", tags={})
    return served.answer(load_model(path)[0], {"mean": dataset.mean, "std": dataset.std}, images)


def answering(port: int) -> None:
    end = time.monotonic() + 100
    while True:
        try:
            urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_a_real_server_is_seen_before_and_after_its_reload(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = Run.start(project.home, "megu", "forget a", {})
    before, champion = registered(project, run, tmp_path, 1), registered(project, run, tmp_path, 2)
    connected, port, stop = lineage.reach(project.home), free_port(), threading.Event()
    lineage.set_alias(connected, "megu", CHAMPION, "1")
    moved(project, "1", None)

    class Stopped(Exception):
        pass

    def say(line: str) -> None:
        lines.append(line)

    def pause(seconds: float) -> None:
        if stop.wait(0.1):
            raise Stopped

    def supervise() -> None:
        with pytest.raises(Stopped):
            supervisor.serve(project, "megu", HOST, port, 0.1, say)

    lines: list[str] = []
    reload = threading.Event()
    really = supervisor.champion
    monkeypatch.setattr(supervisor, "champion", lambda *asked: really(*asked) if reload.is_set() else ("1", ""))
    monkeypatch.setattr(supervisor, "time", type("Clock", (), {"sleep": staticmethod(pause)}))
    thread = threading.Thread(target=supervise)
    thread.start()
    try:
        promoted(project, champion, before)
        lineage.set_alias(connected, "megu", CHAMPION, "2")
        answering(port)
        url = f"http://{HOST}:{port}"
        assert check.inspect_server(project, "megu", url, 60.0).says == "still serves version 1"
        reload.set()
        while len(lines) < 2:
            time.sleep(0.1)
        answering(port)
        assert check.inspect_server(project, "megu", url, 60.0).says == "serves the champion (version 2)"
    finally:
        stop.set()
        thread.join()
    assert lines == [f"serving models:/megu/1 at {url}", f"serving models:/megu/2 at {url} (before it version 1)"]
    # What it left among the version's files is its note, and nothing that it ran.
    with lineage.version_files(connected, connected.get_model_version("megu", "1").source) as folder:
        assert folder is not None
        assert lineage.noted(folder, "megu", "1") == {"registered_model_meta"}
        assert lineage.noted(folder, "megu", "2") == set()
        assert not list(folder.rglob("__pycache__"))
    assert (project.dossiers / RUN).is_dir()
