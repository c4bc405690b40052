"""Registered versions by name. Does not need torch, so it is fast."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from megu.core.errors import MeguError
from megu.tracking import answered

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

#: A version's tag with the SHA-256 of its weights file.
DIGEST_TAG = "weights_sha256"
#: Maximum length of a description in MLflow's tables; only SQLite takes more.
DESCRIBED = 5000
#: Where the weights are in a version.
WEIGHTS = "artifacts/weights.safetensors"


def find_version(connected: MlflowClient, uri: str, asked: str) -> ModelVersion:
    """Return the version that ``uri`` names. asked: where it was specified, for the error. Raises `MeguError` when there is none."""
    parts = re.fullmatch(r"models:/([^/:@]+)(?:/(\d+)|@([^/:@]+))", uri)
    if parts is None:
        raise MeguError(
            f"{asked}: {uri!r} is not a registered model",
            "use models:/name/version, models:/name@alias or runs:/id/name",
        )
    name, version, alias = parts.groups()
    try:
        return connected.get_model_version_by_alias(name, alias) if alias else connected.get_model_version(name, version)
    except Exception as error:  # of MLflow or of our reader of its database: both have a code and a message
        if getattr(error, "error_code", None) not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        reason = str(getattr(error, "message", error)).strip().splitlines()[0]
        raise MeguError(f"{asked}: there is no {uri} ({reason})", "check the name and version in the MLflow registry") from None


@answered
def describe(connected: MlflowClient, uri: str, run_id: str, text: str) -> None:
    """Set the description of a version (``models:/name/3``) that the run made; another run's version keeps the one in its signed
    dossier."""
    name, _, version = uri.removeprefix("models:/").rpartition("/")
    if connected.get_model_version(name, version).run_id == run_id:
        connected.update_model_version(name, version, text)
