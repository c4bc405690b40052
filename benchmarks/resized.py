"""Measure how often an image is found in another size, and how often another one is taken for it.

    python benchmarks/resized.py DATA [--patterns N] [--seed S] [--sizes 14 20 28 56]

DATA: a data set's folder (data/fashion-mnist). N of its training images, chosen by the seed, are looked for at each size among all of them at
each other size, as `megu data add --size` would have packed them from the same files. The data set's own size is that of the files. Prints a
line a pair of sizes: of the N, how many are found for certain and how many are suspected only; of the other rows, how many are taken for one of
the N, in either way; and seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]


def main() -> None:
    from megu.data import arrays
    from megu.erasure.search.resized import Resized, packed

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--patterns", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", type=int, nargs="+", default=[14, 20, 28, 56])
    asked = parser.parse_args()
    images = arrays.load(asked.data).train.images
    chosen = np.sort(np.random.default_rng(asked.seed).choice(len(images), asked.patterns, replace=False))
    sets = {size: np.concatenate([packed(rows, (size, size)) for rows in arrays.chunks(images)]) for size in asked.sizes}
    _, first, same = np.unique(arrays.image_ids(images), return_index=True, return_inverse=True)
    is_one = np.isin(first[same], first[same[chosen]])
    print(f"{asked.patterns} of {len(images):,} images, seed {asked.seed}; size {images.shape[1]} is that of the files")
    print("looked for at | among  | certain | suspected | missed | others: certain | others: suspected | s")
    for here in asked.sizes:
        for there in asked.sizes:
            if here != there:
                began = time.perf_counter()
                found = Resized(sets[here][chosen]).find(sets[there])
                certain, suspected = found.certain >= 0, found.suspected
                missed = int((~(certain | suspected)[chosen]).sum())
                print(
                    f"{here:>13} | {there:>6} | {int(certain[chosen].sum()):>7} | {int(suspected[chosen].sum()):>9} | {missed:>6} | "
                    f"{int((certain & ~is_one).sum()):>15} | {int((suspected & ~is_one).sum()):>17} | {time.perf_counter() - began:.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
