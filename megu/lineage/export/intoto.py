"""An in-toto Statement v1 with SLSA provenance v1 as its predicate, and its DSSE envelope where there is a key.

The subject is the unlearned model's weights; the inputs are resolved dependencies. The statement says how the model was made, in the
form that supply-chain tools check. That data was forgotten is stated by the dossier, which is listed by its hash among the by-products.
https://github.com/in-toto/attestation, https://slsa.dev/spec/v1.1/provenance, https://github.com/secure-systems-lab/dsse
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING

from megu.core.files.store import canonical_json
from megu.lineage.dossier import MAIN, Dossier
from megu.lineage.export.common import JSON, began, dvc_digest, ended, iso, model, pretty, producer
from megu.lineage.keys import public_of, sign
from megu.lineage.reading import Found

if TYPE_CHECKING:
    from megu.lineage.keys import Ed25519PrivateKey

FILE, ENVELOPE = "provenance.intoto.json", "provenance.intoto.dsse.json"
STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
PAYLOAD = "application/vnd.in-toto+json"
#: The name of what was done: the request and the whole configuration are its external parameters.
BUILD = "urn:megu:unlearn:1"


def export(found: Found, key: Ed25519PrivateKey | None) -> Mapping[str, bytes]:
    """Return the statement and, with a key, its envelope."""
    said = statement(found)
    return {FILE: pretty(said)} | ({ENVELOPE: pretty(envelope(canonical_json(said), key))} if key else {})


def statement(found: Found) -> JSON:
    dossier = found.dossier
    registered = model(dossier)
    name = f"models:/{registered[0]}/{registered[1]}" if registered else "unlearned"
    return {
        "_type": STATEMENT,
        "subject": [{"name": f"{name}/weights.safetensors", "digest": {"sha256": dossier.models.unlearned}}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD,
                "externalParameters": {"request": dossier.request, "configuration": dossier.parameters},
                "internalParameters": {"seeds": dossier.seeds, "device": dossier.device},
                "resolvedDependencies": list(_dependencies(dossier)),
            },
            "runDetails": {
                "builder": {
                    "id": producer(dossier),
                    "version": {
                        key.removeprefix("version."): value
                        for key, value in dossier.environment.items()
                        if key.startswith("version.") and value != "absent"
                    },
                },
                "metadata": {
                    "invocationId": dossier.run.mlflow_run_id,
                    "startedOn": iso(began(dossier)),
                    "finishedOn": iso(ended(dossier)),
                },
                "byproducts": [
                    {"name": MAIN, "digest": {"sha256": found.seal.seal}, "mediaType": "application/json"},
                    *({"name": file, "digest": {"sha256": digest}} for file, digest in sorted(dossier.files.items())),
                ],
            },
        },
    }


def _dependencies(dossier: Dossier) -> list[JSON]:
    """Return what the model was made from."""
    data = {
        "name": dossier.data.name,
        "uri": f"dvc:data/{dossier.data.name}",
        "digest": {"dvcDirMd5": dvc_digest(dossier)},
        "annotations": {"images": dossier.data.train + dossier.data.test, "licence": dossier.data.licence},
    }
    split = {"name": "forget split", "digest": {"sha256": dossier.scope.split}}
    original = {"name": "original/weights.safetensors", "digest": {"sha256": dossier.models.original}}
    commit = dossier.environment["git.commit"]
    code = {"name": "code", "digest": {"gitCommit": commit}, "annotations": {"dirty": dossier.environment["git.dirty"]}}
    packages = [
        {"name": name, "uri": f"pkg:pypi/{name}@{found}"}
        for name in ("torch", "numpy")
        if (found := dossier.environment.get(f"version.{name}", "absent")) != "absent"
    ]
    return [data, split, original, *([code] if commit != "unknown" else []), *packages]


def envelope(payload: bytes, key: Ed25519PrivateKey) -> JSON:
    """Return the DSSE envelope: the payload and a signature of its pre-authentication encoding."""
    signature = base64.b64encode(bytes.fromhex(sign(key, encoded(payload), b""))).decode()
    return {
        "payloadType": PAYLOAD,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": public_of(key), "sig": signature}],
    }


def encoded(payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding: the type and the payload, each preceded by its length."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD), PAYLOAD.encode(), len(payload), payload)
