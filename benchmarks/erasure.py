"""Erase from many small projects, and read everything again: nothing of the samples is left that is not named, and nothing else has changed.

    python benchmarks/erasure.py [--times N] [--first K]

Makes N projects by hand (nothing is trained), drawn from: one to three data sets of one or two sizes, with equal labels and names, and in
three of five another that has the same pictures in another size, as `megu data add --size` packs them: larger, smaller or cut to another
shape, where one of both has the files' size (its rows have to go too) or neither has (they have to be named); DVC's cache as copies, hard
links and symbolic links, in the project, elsewhere, and shared with another project that has the same data; a remote inside or outside; pins
committed in git or not; models superseded or in service in MLflow; archives with a broken and an encrypted file; every scenario. Each is
purged with ``--apply``, twice. A reader of its own, which shares nothing with the purge, then looks for the pictures (also larger or smaller,
in arrays as in pictures) and ids in every file, and compares every other file, link and row with what it was. Prints a line for each project
and a JSON object at the end; exit code 1 when something was not as it should be. The first twenty are in
`tests/erasure/test_purge_property.py`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(ROOT / "tests" / "erasure")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    logging.disable(logging.INFO)
    from erasing_right import problems
    from small_projects import drawn

    from megu.erasure.params import PurgeParams

    wrong, drawn_of, began = list[str](), Counter[str](), time.monotonic()
    for number in range(asked.first, asked.first + asked.times):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary).resolve()
            small, policy = drawn(folder, number)
            found = [problem.replace(f"{folder}/", "") for problem in problems(small, PurgeParams(**policy))]
        drawn_of.update(f"{name}: {value}" for name, value in small.said["settings"].items())
        print(f"{number:3} {small.said['settings']}: {'; '.join(found)[:600] or 'right'}", flush=True)
        wrong += [f"{number}: {problem[:300]}" for problem in found]
    summary = {
        "projects": asked.times,
        "wrong": wrong,
        "seconds": round(time.monotonic() - began),
        "drawn": dict(sorted(drawn_of.items())),
    }
    print(json.dumps(summary))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
