"""The stage of ``requests/dvc.yaml``: the forget split of the requests processed last, from a private file (`tasks.records.pinning.pin`).

Run as ``python -m megu.requests.split`` in a project.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from megu.core.errors import MeguError
from megu.data.arrays import limited, load
from megu.data.splits import ForgetParams, as_stage, make_split, save_split


def main(root: Path) -> None:
    """Make ``<root>/requests/split`` from ``<root>/data`` and ``<root>/requests/forget.json``."""
    try:
        value = json.loads((root / "requests" / "forget.json").read_text(encoding="utf-8"))
        asked: dict[str, Any] = {
            name: tuple(entry) if isinstance(entry, list) else entry for name, entry in value["forget"].items()
        }
        params, name, limit, seed = ForgetParams(**asked), value["data"], value["per_class"], int(value["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MeguError(
            f"requests/forget.json cannot be used ({type(error).__name__})", "run the processing flow again"
        ) from None
    save_split(root / "requests" / "split", make_split(limited(load(root / "data" / name), limit), params, seed))


if __name__ == "__main__":
    as_stage(main)
