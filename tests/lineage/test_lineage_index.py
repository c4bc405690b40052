"""Which recorded model saw a sample."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megu.core.errors import MeguError
from megu.erasure.policy import seen
from megu.lineage.commitments import commit, commit_all
from megu.lineage.index import Index, Row

KEY = b"k" * 32
ROW = Row(
    run_id="", seal="s", created="2026-01-01", model="models:/megu/1", request="a", method="megu", data="d", trained="", forgotten="",
    original="o", unlearned="u", given=0, key="f",
)  # fmt: skip


def ids(count: int, start: int = 0) -> list[bytes]:
    return [
        hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest().encode() for number in range(start, start + count)
    ]


@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(range(12)), min_size=1), st.randoms(use_true_random=False)), min_size=1, max_size=4
    ),
    st.integers(0, 15),
)
@settings(max_examples=25, deadline=None)
def test_it_answers_what_the_sets_say(tmp_path_factory: pytest.TempPathFactory, runs: list, asked: int) -> None:  # type: ignore[type-arg]
    index, known = Index(tmp_path_factory.mktemp("index")), ids(16)
    sets = []
    for number, (trained, random) in enumerate(runs):
        forgotten = set(random.sample(sorted(trained), random.randint(0, len(trained))))
        sets.append((trained, forgotten))
        kept = [index.put(commit_all(KEY, [known[at] for at in chosen])) for chosen in (trained, forgotten)]
        index.add([replace(ROW, run_id=str(number), trained=kept[0], forgotten=kept[1])])
    answers = index.which(KEY, known[asked])
    assert len(answers) == len(sets)
    for answer, (trained, forgotten) in zip(answers, sets, strict=True):
        assert answer.unlearned == ("forgot" if asked in forgotten else "trained" if asked in trained else "never saw")
        assert answer.original == ("trained" if asked in trained else "never saw")


def test_a_model_made_of_another_knows_what_that_knew(tmp_path: Path) -> None:
    """The first run saw 0 to 3 and forgot 0. The second begins with its model, sees 2 and 3 only and forgets 2."""
    index, known = Index(tmp_path), ids(6)

    def kept(*chosen: int) -> str:
        return index.put(commit_all(KEY, [known[at] for at in chosen]))

    first = replace(ROW, run_id="1", created="1", trained=kept(0, 1, 2, 3), forgotten=kept(0), original="o", unlearned="a")
    second = replace(ROW, run_id="2", created="2", given=1, trained=kept(2, 3), forgotten=kept(2), original="a", unlearned="b")
    index.add([first, second])
    said = {at: [(answer.original, answer.unlearned) for answer in index.which(KEY, known[at])] for at in (0, 1, 2, 3, 5)}
    assert said == {
        0: [("trained", "forgot"), ("forgot", "forgot")],
        1: [("trained", "trained"), ("trained", "trained")],
        2: [("trained", "trained"), ("trained", "forgot")],
        3: [("trained", "trained"), ("trained", "trained")],
        5: [("never saw", "never saw"), ("never saw", "never saw")],
    }
    for at, models in ((0, {"o"}), (1, {"o", "a", "b"}), (2, {"o", "a"}), (5, set())):
        found = seen(index, frozenset({commit(KEY, known[at])}))
        assert found.models == models
        assert found.innocent == ({"o"} - models), "what an original from outside saw nobody can know here"


def test_an_original_whose_training_set_is_gone_from_the_index_is_not_cleared(tmp_path: Path) -> None:
    index = Index(tmp_path)
    index.add([replace(ROW, run_id="1", trained="0" * 64, forgotten=index.put(b""))])
    assert seen(index, frozenset({commit(KEY, ids(1)[0])})).innocent == frozenset()


def test_a_retrain_knows_nothing_of_the_original_that_it_replaces(tmp_path: Path) -> None:
    index, known = Index(tmp_path), ids(4)
    trained = index.put(commit_all(KEY, known[:2]))
    index.add([replace(ROW, run_id="1", given=1, method="retrain", trained=trained, forgotten=index.put(b""))])
    (answer,) = index.which(KEY, known[3])
    assert (answer.unlearned, answer.original) == ("never saw", "unknown")


def test_of_a_given_original_nothing_is_known(tmp_path: Path) -> None:
    index = Index(tmp_path)
    name = index.put(commit_all(KEY, ids(3)))
    index.add([replace(ROW, run_id="1", given=1, trained=name, forgotten=index.put(b""))])
    (answer,) = index.which(KEY, ids(1)[0])
    assert (answer.unlearned, answer.original) == ("trained", "unknown")
    (answer,) = index.which(KEY, ids(5)[4])
    assert (answer.unlearned, answer.original) == ("unknown", "unknown"), "its giver may have trained on it"


def test_a_run_that_is_recorded_again_has_one_row_and_equal_sets_one_file(tmp_path: Path) -> None:
    index = Index(tmp_path)
    name = index.put(commit_all(KEY, ids(3)))
    assert index.put(commit_all(KEY, reversed(ids(3)))) == name
    for request in ("a", "b"):
        index.add([replace(ROW, run_id="1", trained=name, forgotten=name, request=request)])
    assert [row.request for row in index.rows()] == ["b"]
    assert len(list(tmp_path.glob("sets/*/*"))) == 1


def test_the_training_set_is_made_once(tmp_path: Path) -> None:
    made = []
    for _ in range(3):
        Index(tmp_path).trained("data", "key", lambda: made.append(1) or b"x" * 32)  # type: ignore[func-returns-value]
    assert made == [1]


def test_a_missing_set_is_said(tmp_path: Path) -> None:
    index = Index(tmp_path)
    index.add([replace(ROW, run_id="1", trained="0" * 64, forgotten="1" * 64)])
    with pytest.raises(MeguError, match="megu lineage index"):
        index.which(KEY, ids(1)[0])


def test_a_database_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "index.db").write_bytes(b"not a database" * 100)
    with pytest.raises(MeguError, match="delete it and run `megu lineage index`"):
        Index(tmp_path).rows()


def test_a_thousand_runs_of_sixty_thousand_samples_answer_in_under_a_second(tmp_path: Path) -> None:
    """Each with a forget set of its own, the worst case."""
    index, known = Index(tmp_path), ids(60_000)
    trained = index.put(commit_all(KEY, known))
    rows = []
    for number in range(1000):
        forgotten = commit_all(KEY, known[number * 50 : number * 50 + 100])
        rows.append(replace(ROW, run_id=f"{number:04}", trained=trained, forgotten=index.put(forgotten)))
    index.add(rows)
    started = time.perf_counter()
    answers = index.which(KEY, known[150])
    seconds = time.perf_counter() - started
    assert [answer.row.run_id for answer in answers if answer.unlearned == "forgot"] == ["0002", "0003"]
    assert {answer.unlearned for answer in answers} == {"forgot", "trained"}
    assert seconds < 1, seconds
    print(f"which: {seconds:.3f} s")
