"""The notebook of docs runs from top to bottom, on real data, where only torch and numpy are installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from test_house import REFUSED

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOK = REPOSITORY / "docs" / "notebook.ipynb"
#: A slice that takes seconds.
SMALL = "TRAIN, TEST, EPOCHS = 3000, 1000, 3"

PROGRAM = """
import json, sys
refused, cells = json.loads(sys.stdin.read())
for name in refused:
    sys.modules[name] = None
space = {}
for cell in cells:
    exec(compile(cell, "notebook", "exec"), space)
found = {name: space[name].metrics for name in ("before", "scores")}
print(json.dumps({**found, "rules": [rule.rule for rule in space["verdict"].rules], "gap": space["scores"].gap}))
"""


def test_it_forgets_the_class_and_keeps_the_rest(fashion_mnist_project: Path) -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    texts = [SMALL if "parameters" in cell["metadata"].get("tags", []) else "".join(cell["source"]) for cell in cells]
    assert texts.count(SMALL) == 1
    folder = fashion_mnist_project / "docs"  # the notebook names the data from its own folder
    folder.mkdir(exist_ok=True)
    place = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([REFUSED, texts]),
        cwd=folder,
        env=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    before, after = found["before"], found["scores"]
    assert before["Af"] > 60
    assert after["Af"] < 10
    assert after["Ar"] > before["Ar"] - 5
    assert found["gap"] < 15
    assert {"evidence", "forgotten, test", "retained, test", "MIA"} <= set(found["rules"])


def test_no_output_is_kept_in_it() -> None:
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
