"""What an unlearning cost beside the retrain, in time and in passes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from megu.training.loop import passed
from tasks.records.record import share
from tasks.run import cached


def finished(**notes: dict[str, float]) -> Any:
    """A run of these stages, a name with a number behind it a further one of its kind."""
    ran = [
        SimpleNamespace(
            decision=SimpleNamespace(stage=SimpleNamespace(name=name.rstrip("0123456789"))),
            result=SimpleNamespace(notes=values),
        )
        for name, values in notes.items()
    ]
    return SimpleNamespace(ran=ran)


def test_the_share_by_hand() -> None:
    """Noise and unlearning, 1 + 4 s and 10 + 20 passes, of the first retrain's 20 s and 600; nothing else counts."""
    run = finished(
        original={"compute_seconds": 99, "passes": 999},
        noise={"compute_seconds": 1, "passes": 10},
        unlearn={"compute_seconds": 4, "passes": 20},
        reference={"compute_seconds": 20, "passes": 600},
        reference2={"compute_seconds": 77, "passes": 777},
    )
    assert share(run, "compute_seconds") == pytest.approx(25)
    assert share(run, "passes") == pytest.approx(5)


def test_a_method_without_noise_spends_itself_and_without_a_retrain_there_is_no_share() -> None:
    alone = {"unlearn": {"passes": 20}}
    assert share(finished(**alone, reference={"passes": 80}), "passes") == pytest.approx(25)
    assert share(finished(**alone), "passes") is None


def test_what_a_stage_measures_has_the_passes_of_its_own_work() -> None:
    passed(5)
    found, notes = cached.measured(lambda: [passed(3), passed(4)], "cpu")
    assert found == [None, None]
    assert notes["passes"] == 7
    assert cached.measured(lambda: None, "cpu")[1]["passes"] == 0
