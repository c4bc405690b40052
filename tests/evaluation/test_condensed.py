"""What is stored of a model's outputs, against the whole of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from megu.core.files.store import Store
from megu.evaluation import entropies, softmax
from megu.evaluation.condensed import Condensed, condense

LOGITS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 40), st.integers(2, 12)),
    elements=st.floats(-200, 200, width=32),
)


@given(LOGITS, st.data())
def test_condensed_outputs_are_those_of_the_whole_logits_to_the_bit(logits: np.ndarray, data: st.DataObject) -> None:
    """Computed over all images at once, as it is stored, or over the retained ones alone, as it was before: the same bits."""
    forget = np.array(sorted(data.draw(st.sets(st.integers(0, len(logits) - 1)))), dtype=np.int64)
    retain = np.setdiff1d(np.arange(len(logits)), forget)
    found = condense(logits, logits[::-1], forget)
    probabilities = softmax(logits[retain])
    assert (found.entropy[retain] == entropies(probabilities)).all()
    assert (found.confidence[retain] == probabilities.max(axis=1, initial=0).astype(np.float32)).all()
    assert (found.predicted == logits.argmax(1)).all()
    assert (found.forget == logits[forget]).all()
    assert (found.test == logits[::-1]).all()


def test_condensed_outputs_come_back_from_the_store_as_they_were(tmp_path) -> None:  # type: ignore[no-untyped-def]
    logits = np.random.default_rng(0).normal(size=(500, 100)).astype(np.float32)
    found = condense(logits, logits[:100], np.arange(5))
    ref = Store(tmp_path).put_arrays(vars(found))
    back = Condensed(**Store(tmp_path).arrays(ref))
    for name, array in vars(found).items():
        assert getattr(back, name).dtype == array.dtype
        assert (getattr(back, name) == array).all()
    # Of the training images 16 bytes each are left of 400, beside the logits of the 5 that are forgotten and of the 100 test images.
    assert ref.size < 500 * 16 + 105 * 400 + 1000
