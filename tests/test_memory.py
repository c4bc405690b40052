from __future__ import annotations

import time

import numpy as np

from megu.memory import watched


def test_the_peak_is_seen_though_it_is_given_back() -> None:
    with watched() as memory:
        taken = np.ones(200 * 2**20, dtype=np.uint8)  # 200 MiB, written to, so that they are there
        time.sleep(0.1)
        del taken
    assert memory.peak - memory.before > 150
    assert memory.to_json()["peak_mib"] == round(memory.peak, 1)


def test_little_work_takes_little() -> None:
    with watched() as memory:
        pass
    assert 0 <= memory.peak - memory.before < 50
