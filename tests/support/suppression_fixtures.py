"""Records of erased images, and a project that has some on its list."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from purge_fixtures import encoded

from megu.core.project import Project
from megu.data.arrays import image_ids
from megu.data.images import near
from megu.lineage.commitments import commit
from megu.suppression.record import Record, made
from megu.suppression.store import Suppressions

KEY, OTHER = b"k" * 32, b"o" * 32
REQUEST = "r0123456789abcdef"


def record(images: Any, key: bytes = KEY, **changes: Any) -> Record:
    facts = {
        "erased": "2026-11-27T05:00:00+00:00",
        "requests": [REQUEST],
        "runs": ["run"],
        "data": "photos",
        "shape": list(images.shape[1:]),
        "samples": len(images),
        "until": None,
        **changes,
    }
    return made(key, (commit(key, bytes(value)) for value in image_ids(images)), near.strengths(images).hashes, **facts)


def listing(project: Project, images: Any, **changes: Any) -> Record:
    """Put images on a project's list."""
    project.keys.mkdir(parents=True, exist_ok=True)
    (project.keys / "commitments.key").write_text(KEY.hex())
    new = record(images, **changes)
    Suppressions(project).add([new])
    return new


def folders(root: Path, images: Any, form: str = "PNG", start: int = 0, **options: Any) -> Path:
    """Class folders of images: every fourth of them is a test image, the classes are a and b."""
    for number, image in enumerate(images):
        path = root / ("test" if number % 4 == 3 else "train") / "ab"[number % 8 // 4] / f"{start + number:03}.{form.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image, form, **options))
    return root


def resized(images: Iterable[Any], side: int) -> Any:
    """(n, H, W, 3) to another side, as another program does it."""
    pictures = (Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS) for image in images)
    return np.stack([np.asarray(picture) for picture in pictures])
