"""What a finished run can be held to."""

from __future__ import annotations

import pytest
from lineage_fixtures import Finished

from megu.lineage.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("flow")]


def test_a_finished_run_holds_in_every_point(finished: Finished) -> None:
    import time

    for summary in (finished.newer, finished.older):
        t = time.time()
        report = verify(summary.mlflow_run_id, finished.project)
        print(time.time() - t)
        for check in report.checks:
            print(check)
        assert report.exit_code == 0, [check for check in report.checks if not check.holds]
