"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): their classes, their superclasses, and the conversion of torchvision's copy to our arrays."""

from __future__ import annotations

import contextlib
import io
import pickletools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from megu.data.arrays import Columns, Dataset, Facts, save_columns
from megu.data.superclasses import coarse_names

SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"

#: The 20 superclasses of CIFAR-100.
SUPERCLASSES: dict[str, tuple[str, ...]] = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}


@dataclass(frozen=True)
class Kind:
    """torchvision: the name of its class. files: the batches in its folder, by split. classes: in alphabetical order, indexed by labels."""

    torchvision: str
    files: Mapping[str, Sequence[str]]
    classes: tuple[str, ...]
    superclasses: Mapping[str, Sequence[str]] | None

    @property
    def coarse(self) -> tuple[str, ...] | None:
        return None if self.superclasses is None else coarse_names(self.classes, self.superclasses)

    def facts(self, name: str) -> Facts:
        return Facts(name, self.classes, self.coarse, SOURCE, "not stated by its authors")


KINDS: dict[str, Kind] = {
    "cifar10": Kind(
        "CIFAR10",
        {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]},
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        None,
    ),
    "cifar100": Kind(
        "CIFAR100",
        {"train": ["train"], "test": ["test"]},
        tuple(sorted(name for names in SUPERCLASSES.values() for name in names)),
        SUPERCLASSES,
    ),
}


def read(torchvision: Any, name: str, folder: Path, *, download: bool = True) -> Callable[[Path], Dataset]:
    """Read what torchvision has in ``folder`` or downloads to it; the returned function writes the data set.

    Samples are ordered by class and file name, as the same images are in class folders, so torchvision's copy and an archive of class
    folders give the same bytes.

    Raises
    ------
    RuntimeError, OSError: the download failed, or its files are not the known ones.
    ValueError: the files have another format.
    """
    kind = KINDS[name]
    images, columns = {}, {}
    for split in ("train", "test"):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found = getattr(torchvision.datasets, kind.torchvision)(str(folder), train=split == "train", download=download)
        batches = [folder / found.base_folder / file for file in kind.files[split]]
        files = [file for batch in batches for file in file_names(batch.read_bytes())]
        labels = np.array(found.targets, dtype=np.int64)
        if len(files) != len(labels) or tuple(found.classes) != kind.classes:
            raise ValueError(f"{name} of torchvision has {len(files)} file names for {len(labels)} labels, or other classes")
        keys = [f"{kind.classes[label]}/{PurePosixPath(file).stem}" for label, file in zip(labels, files, strict=True)]
        order = np.array(sorted(range(len(keys)), key=keys.__getitem__))
        images[split] = np.asarray(found.data)[order]
        columns[split] = Columns(labels[order], None, [keys[position] for position in order])
    return lambda path: save_columns(path, kind.facts(name), images, columns)


def file_names(content: bytes) -> list[str]:
    """Return the names of the images in one of CIFAR's batches, which torchvision does not expose.

    A batch is a pickle; its opcodes are only read here, none of them is executed.
    """
    texts = [argument for _, argument, _ in pickletools.genops(content) if isinstance(argument, str)]
    return [text for text in texts if text.endswith(".png")]
