"""The forget split of the most recently processed requests, made and pinned by DVC under ``requests/``."""

from __future__ import annotations

import json
import secrets
from typing import Any

import numpy as np

from megu.config.tree import Config
from megu.core.errors import MeguError
from megu.core.files.store import writing
from megu.core.project import Project
from megu.data import dvc, splits
from megu.data.splits import ForgetParams
from megu.requests.fulfilled import DatasetContents

_DVC = """\
# Written by megu: the forget set of the requests processed last, pinned by DVC. What it is made of is private and not in git.
stages:
  forget:
    wdir: ..
    cmd: python -m megu.requests.split
    deps:
      - data/{name}
      - requests/forget.json
    outs:
      - requests/split
"""


def pin(project: Project, config: Config, has: DatasetContents, forget: ForgetParams) -> str:
    """Have DVC make and pin the forget split under ``requests/``; return its hash there, empty if the project has no DVC stages.

    Its input is a private file that contains a random number: the hash in ``dvc.lock`` does not reveal which samples are meant. Raises
    `MeguError` when DVC's split is not the one that is used.
    """
    if not (project.root / "dvc.yaml").is_file():
        return ""
    folder = project.root / "requests"
    folder.mkdir(exist_ok=True)
    private = folder / "forget.json"
    wanted = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(forget).items()}
    asked = {"data": config.data.name, "per_class": config.data.per_class, "seed": config.seed, "forget": wanted}
    if _without_salt(private) != asked:
        with writing(private) as temporary:
            temporary.write_text(json.dumps({**asked, "salt": secrets.token_hex(16)}), encoding="utf-8")
    stage = _DVC.format(name=config.data.name)
    for file, text in (("dvc.yaml", stage), (".gitignore", "/inbox/\n/refused/\n/forget.json\n/split\n")):
        if not (folder / file).is_file() or (folder / file).read_text(encoding="utf-8") != text:
            (folder / file).write_text(text, encoding="utf-8")
    dvc.init(project.root)
    dvc.run(project.root, "repro", "--single-item", "requests/dvc.yaml:forget")
    pinned, used = splits.load_split(folder / "split"), splits.make_split(has.dataset, forget, config.seed)
    if not np.array_equal(pinned.forget, used.forget) or not np.array_equal(pinned.retain, used.retain):
        raise MeguError("requests/split is not the forget set of the requests", "delete requests/split and run again")
    return dvc.out_of(folder / "dvc.lock", "forget", "requests/split")


def _without_salt(path: Any) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {name: entry for name, entry in value.items() if name != "salt"} if isinstance(value, dict) else None
