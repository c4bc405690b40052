"""Write a data set without some of its samples: a new version of the same folder with every other byte unchanged.

Mean and standard deviation stay those of the first version: the models in service were trained on images normalised with them, and two
four-digit numbers per channel, computed over so many images, reveal nothing about a single one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megu.core.errors import MeguError
from megu.data.arrays import SPLITS, Dataset, Partition, load
from megu.data.images.repeats import repeats
from megu.data.writing import ImageWriter, chunks, write_array, write_json


def write_without(dataset: Dataset, gone: Mapping[str, NDArray[np.bool_]], folder: Path) -> Dataset:
    """Write the data set without the rows of ``gone`` (a mask for each split) into ``folder``, and load it from there.

    Raises `MeguError` when a split would be empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    meta = json.loads((dataset.path / "meta.json").read_text(encoding="utf-8"))
    for split in SPLITS:
        partition, keep = getattr(dataset, split), ~gone[split]
        if not keep.any():
            raise MeguError(
                f"nothing would be left of the {split} images of {dataset.name!r}",
                "a purge keeps at least one image of each split; deleting the whole data set is your decision",
            )
        _write_images(folder / f"{split}_images.npy", partition, keep)
        columns = {"labels": partition.labels, "ids": partition.ids, "fine": partition.fine, "names": partition.names}
        for name, column in columns.items():
            if column is not None:
                write_array(folder / f"{split}_{name}.npy", np.asarray(column[keep]))
        meta["splits"][split][0] = int(keep.sum())
    if meta.pop("repeated", None):
        parts = {split: (getattr(dataset, split), ~gone[split]) for split in SPLITS}
        ids, labels = (
            {split: getattr(part, name)[keep] for split, (part, keep) in parts.items()} for name in ("ids", "labels")
        )
        if left := repeats(ids, labels):
            meta["repeated"] = left
    write_json(folder / "meta.json", meta)
    return load(folder)


def _write_images(path: Path, partition: Partition, keep: NDArray[np.bool_]) -> None:
    writer, start = ImageWriter(path), 0
    try:
        for rows in chunks(partition.images):
            writer.append(rows[keep[start : start + len(rows)]])
            start += len(rows)
    finally:
        writer.close()
