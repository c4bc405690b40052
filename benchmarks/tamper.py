"""Change a finished run in every place that its dossier covers, one at a time, and see whether `megu verify` names each change.

    python benchmarks/tamper.py [--every N] [--keep FOLDER]

Makes a tiny project of the first Fashion-MNIST images, runs it twice, and verifies once a change. --every: only one change in N.
--keep: make the project there, or use the one that is there. Prints a line a surface; exit code 1 when a change was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--every", type=int, default=1)
    arguments.add_argument("--keep", type=Path)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = (asked.keep or Path(temporary) / "project").resolve()
        os.environ["MEGU_PROJECT"] = str(root)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        if not (root / "params.yaml").is_file():
            finish(root)
        return tamper(root, asked.every)


def finish(root: Path) -> None:
    """Two finished runs; the project's data set is a slice of the repository's."""
    from lineage_fixtures import make_project, run_in

    from megu.data import arrays
    from megu.data.sources import providers

    fetched = providers.fetch(ROOT, "fashion-mnist")
    root.mkdir(parents=True, exist_ok=True)
    project = make_project(root, arrays.load(fetched.dataset_path))
    run = run_in(project)
    run("unlearn.alpha=0.6")
    run()


def tamper(root: Path, every: int) -> int:
    import tampering

    from megu.core.project import Project
    from megu.lineage.verify.run import verify
    from megu.tracking import lineage

    project = Project(root)
    newest = lineage.head(lineage.reach(project.home), "megu")
    assert newest is not None
    run_id = newest[0]
    before = verify(run_id, project)
    assert before.exit_code == 0, json.dumps(before.to_json(), indent=1)
    changes = tampering.surfaces(project, run_id)[::every]
    tried, missed, started = Counter[str](), Counter[str](), time.perf_counter()
    for change in changes:
        tried[change.surface] += 1
        if tried.total() % 100 == 0:
            print(f"{tried.total()} of {len(changes)}, {missed.total()} missed", file=sys.stderr, flush=True)
        if (said := tampering.missed(change, project, run_id)) is not None:
            missed[change.surface] += 1
            print(f"MISSED {change}: {said}", file=sys.stderr)
    seconds = time.perf_counter() - started
    assert verify(run_id, project).exit_code == 0, "not everything was put back"
    for surface, count in tried.items():
        print(f"{surface}: {count} changes, {missed[surface]} missed")
    print(f"{sum(tried.values())} changes, {sum(missed.values())} missed, {seconds:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
