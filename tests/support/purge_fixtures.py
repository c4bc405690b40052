"""Images to look for, and a finished project of its own to purge."""

from __future__ import annotations

import io
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.tracking._tracking_service import utils as tracked
from PIL import Image

from megu.core.project import Project
from megu.data.arrays import image_ids
from megu.erasure.search.patterns import SearchPatterns


def garments(count: int = 12, channels: int = 1, seed: int = 0, size: int = 28) -> Any:
    """Smooth images, no two alike: uint8 (count, size, size, channels)."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        small = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
        found.append(np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC))[..., :channels])
    return np.stack(found)


def patterns(images: Any) -> SearchPatterns:
    return SearchPatterns(images, image_ids(images))


def encoded(image: Any, form: str = "PNG", side: int | None = None, **options: Any) -> bytes:
    """An image as a file, made larger as labelers are shown it where ``side`` says so."""
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    if side:
        picture = picture.resize((side, side), Image.Resampling.BICUBIC).convert("RGB")
    content = io.BytesIO()
    picture.save(content, form, **options)
    return content.getvalue()


def forget_places() -> None:
    """MLflow remembers by run id where artifacts go, and a run that was moved is in two projects."""
    tracked._artifact_repos_cache.clear()


def moved(project: Project, to: Path, whole: Path | None = None) -> Project:
    """A copy of a finished project that is one of its own: MLflow writes down where the files of a run lie.

    whole: a copy of the project from before, to take instead of what it is now.
    """
    shutil.copytree(whole or project.root, to, symlinks=True)
    with sqlite3.connect(to / ".megu" / "mlflow.db") as opened:
        for table, column in (
            ("runs", "artifact_uri"),
            ("experiments", "artifact_location"),
            ("logged_models", "artifact_location"),
            ("model_versions", "storage_location"),
        ):
            opened.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (f"{project.root}/", f"{to}/"))
    forget_places()
    return Project(to)
