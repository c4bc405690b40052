"""Every form of `awkward`: right to the pixel and counted, or refused by name in one line."""

from __future__ import annotations

import json
from pathlib import Path

import awkward_archives  # noqa: F401 - they enter their forms
import awkward_folders  # noqa: F401
import awkward_images  # noqa: F401
import numpy as np
import pytest
from awkward import FORMS, Made

from megu.core.errors import MeguError
from megu.data.arrays import Facts
from megu.data.images import archives
from megu.data.images.folders import pack
from megu.data.images.notes import Notes
from megu.data.images.packing import Packing
from megu.data.images.repeats import repeat_lines
from megu.erasure.search.pictures import Pictures, pictures_in


def test_there_are_many() -> None:
    assert len(FORMS) > 100


@pytest.mark.parametrize("name", FORMS)
def test_awkward(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(archives, "_ROOM", 1 << 19)
    made, notes = Made(tmp_path / "set"), Notes()
    FORMS[name](made)
    target = tmp_path / "data" / "packed"
    packing = Packing(max_corrupt=made.max_corrupt)
    if made.refused:
        with pytest.raises(MeguError) as raised:
            pack(target, made.source, Facts("set", ()), packing, notes=notes)
        assert made.refused in str(raised.value)
        assert raised.value.fix
        assert str(raised.value).isprintable(), "one line, fit for any terminal"
        assert list((tmp_path / "data").glob("*")) == []
        return
    dataset = pack(target, made.source, Facts("set", ()), packing, notes=notes)
    found = {}
    for split, part in (("train", dataset.train), ("test", dataset.test)):
        assert part.names is not None
        for label, image, file in zip(part.labels, part.images, part.names, strict=True):
            assert file.decode().startswith(f"{dataset.classes[label]}/")
            found[f"{split}/{file.decode()}"] = image
    assert found.keys() == made.images.keys()
    for key, image in found.items():
        assert np.array_equal(image, made.images[key]), key
    meta = json.loads((target / "meta.json").read_text())
    for key in ("ignored", "converted", "repeated"):
        assert meta.get(key, {}) == getattr(made, key)
        assert (key in meta) == bool(getattr(made, key)), "a field that has nothing to say is not there"
    lines = [*notes.lines(), *repeat_lines(dataset)]
    assert all(any(part in line for line in lines) for part in made.said), lines
    assert all(line.isprintable() for line in lines)
    silent = not (made.said or made.ignored or made.converted or made.repeated)
    assert not (silent and lines), lines
    assert capfd.readouterr() == ("", "")
    for file in (made.root / "train" / "cat").glob("0.*" if "train/cat/0" in made.images else "-"):
        content = memoryview(file.read_bytes())
        sought = Pictures(made.images["train/cat/0"][None])
        assert any(isinstance(found, np.ndarray) and sought.find(found) for found in pictures_in(content, file.suffix)), (
            "by a purge"
        )
