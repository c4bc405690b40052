"""A model card as the Hugging Face Hub reads it: a README.md with a YAML header that has the results as a model-index.

https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from megu.core.escaping import markdown, markdown_code
from megu.evaluation.gate import on_training, provided_retrain
from megu.evaluation.guide import METRICS, title
from megu.evaluation.own import explained
from megu.evaluation.text import UNITS, number, retrain_title
from megu.lineage.dossier import Dossier
from megu.lineage.export.common import JSON, model, tries
from megu.lineage.reading import Found

if TYPE_CHECKING:
    from megu.lineage.keys import Ed25519PrivateKey

FILE = "README.md"
#: Metric -> the split it is measured on, by the Hub's name.
_SPLITS = {"Ar": "test", "Af": "test", "test_accuracy": "test", "Ar_train": "train", "Af_train": "train"}


def export(found: Found, key: Ed25519PrivateKey | None) -> Mapping[str, bytes]:
    return {FILE: card(found).encode()}


def metadata(found: Found) -> dict[str, JSON]:
    """Return the header of the card. The licence of the weights cannot be guessed, so it is given as unknown."""
    dossier = found.dossier
    registered = model(dossier)
    measured = dossier.evidence.evaluation["unlearned"]["metrics"]
    train = on_training(dossier.evidence.evaluation)
    metrics = [
        {
            "type": "accuracy",
            "name": title(name, METRICS[name], on_training=train),
            "value": round(measured[name], 4),
            "args": {"split": split},
        }
        for name, split in {**_SPLITS, **({"Af": "train"} if train else {})}.items()
        if measured.get(name) is not None
    ]
    return {
        "license": "unknown",
        "pipeline_tag": "image-classification",
        "library_name": "pytorch",
        "tags": ["machine-unlearning", "megu", f"unlearning-method:{dossier.method['name']}", f"claim:{dossier.claim.level}"],
        "model-index": [
            {
                "name": f"{registered[0]} version {registered[1]}" if registered else "an unlearned model",
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "Image classification after unlearning"},
                        "dataset": {
                            "type": dossier.data.name,
                            "name": dossier.data.name,
                            "split": "test",
                            "revision": dossier.data.dvc_hash,
                        },
                        "metrics": metrics,
                    }
                ],
            }
        ],
    }


def card(found: Found) -> str:
    """Return the whole card."""
    import yaml

    head = yaml.safe_dump(metadata(found), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n" + "\n".join(_body(found)) + "\n"


def _body(found: Found) -> Iterator[str]:
    dossier = found.dossier
    registered = model(dossier)
    name = f"models:/{registered[0]}/{registered[1]}" if registered else f"run {dossier.run.mlflow_run_id}"
    yield f"# {markdown(name)}, after forgetting {markdown(str(dossier.request['words']))}"
    yield f"\n{markdown(dossier.evidence.verdict)}."
    yield "\n## What it is\n"
    yield (
        f"- An image classifier for {markdown_code(dossier.data.name)} ({dossier.data.train:,} training images), "
        "changed to forget a part of them."
    )
    yield f"- Request: {dossier.scope.scenario}, {dossier.scope.forget:,} training images; {dossier.scope.retain:,} were kept."
    if dossier.per_class is not None:
        yield f"- Per class, at most {dossier.per_class:,} training images were used (`data.per_class`)."
    method = dossier.method
    said = f"{_small(str(method['title']))} ({method['paper']})"
    yield f"- Method: {markdown_code(str(method['name']))}, {markdown(said)}."
    if dossier.labeler:
        said = f"{dossier.labeler['name']}, {dossier.labeler['kind']}"
        yield f"- Labeler: {markdown(said)}."
    yield f"- Compared with: {markdown(dossier.evidence.reference)}."
    yield "\n## Intended use\n"
    yield "To replace the model that still knew the forgotten images. It classifies what that model classified, and nothing else."
    yield "\n## Evaluation\n"
    yield from _table(dossier)
    yield "\n## Limits\n"
    yield from (f"- {markdown(limit)}" for limit in [*dossier.claim.limits, tries(dossier)] if limit)
    yield "\n## Training data\n"
    yield f"{markdown_code(dossier.data.name)}, DVC hash `{dossier.data.dvc_hash}`; "
    yield f"source: {markdown(dossier.data.source)}; licence: {markdown(dossier.data.licence)}."
    yield "\n## Provenance\n"
    yield f"- weights (SHA-256): `{dossier.models.unlearned}`"
    yield f"- lineage root: `{dossier.root}`"
    yield f"- dossier seal: `{found.seal.seal}` ({f'signed by `{found.seal.public}`' if found.seal.public else 'unsigned'})"
    yield f"- code: commit `{dossier.environment['git.commit']}`"
    yield f"- check it: {markdown_code(f'megu verify {name if registered else dossier.run.mlflow_run_id}')}"


def _table(dossier: Dossier) -> Iterator[str]:
    retrain = retrain_title(provided_retrain(dossier.evidence.evaluation))
    models = {"original": "original", "unlearned": "this model", "reference": retrain}
    found = {key: dossier.evidence.evaluation[key]["metrics"] for key in models if dossier.evidence.evaluation.get(key)}
    yield f"| metric | {' | '.join(models[key] for key in found)} | right value |"
    yield f"|---|{'---|' * (len(found) + 1)}"
    for key, metric in explained().items():
        if key in found["unlearned"]:
            values = [number(metrics.get(key), *UNITS[metric.unit]) for metrics in found.values()]
            named = title(key, metric, on_training=on_training(dossier.evidence.evaluation))
            yield f"| {named} | {' | '.join(values)} | {metric.right} |"


def _small(title: str) -> str:
    return title[:1].lower() + title[1:]
