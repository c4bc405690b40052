"""The proxy: what a model that never saw the forget set answers for it, where the request needs one."""

from __future__ import annotations

from megu.project import Project
from megu.proxy import ProxyParams
from megu.stages import Device, Outcome, Result, Stage
from megu.training import TrainParams
from tasks import kept


def stand_in(
    project: Project,
    data: Result,
    split: Result,
    original: Result,
    predictions: Result,
    recipe: TrainParams,
    params: ProxyParams,
    seed: int,
    device: Device,
) -> Outcome:
    """predictions: the original's. No files where the parameters ask for no proxy."""
    from megu.data.tensors import ImageSet
    from megu.device import resolve
    from megu.evaluation import entropies, softmax
    from megu.proxy import masked, temperature, train_proxy
    from megu.training import predict
    from megu.weights import load_weights

    positions, loaded = kept.forget_split(project, split), kept.dataset(project, data)
    answers = project.store.arrays(predictions.files["predictions"])
    accuracy = float((answers["train_logits"].argmax(axis=1) == loaded.train.labels).mean())
    if why := params.refusal(accuracy, positions.classes):
        return Outcome(values={"used": False, "why": why}, notes={"compute_seconds": 0.0})
    _, info = load_weights(project.store.checked(original.files["weights"]))
    retain = kept.train_images(project, data, device, positions.retain)
    checkpoint = kept.checkpoint(project, "proxy", data, split, original, recipe, params, seed)
    model, cost = kept.measured(lambda: train_proxy(retain, recipe, params.share, info.fresh, seed, checkpoint), device)

    def ask(partition: str, index: object) -> ImageSet:
        return ImageSet.from_partition(
            getattr(loaded, partition),
            loaded.mean,
            loaded.std,
            resolve(device),
            index=index,
        )

    forget = predict(model, ask("train", positions.forget), label="ask the proxy").logits.numpy()
    held_out = predict(model, ask("test", positions.test_retain), label="ask the proxy").logits.numpy()
    fitted = temperature(
        masked(held_out, positions.classes), masked(answers["test_logits"][positions.test_retain], positions.classes)
    )
    logits = (forget / fitted).astype("float32")
    entropy = float(entropies(softmax(masked(logits, positions.classes))).mean())
    return Outcome(
        files={"proxy": project.store.put_arrays({"logits": logits})},
        values={"used": True, "temperature": round(fitted, 4), "entropy": round(entropy, 4)},
        notes=cost,
    )


def say(result: Result) -> str:
    if not result.values["used"]:
        return f"none: {result.values['why']}"
    return f"{kept.say_trained(result)}, temperature {result.values['temperature']:.2f}"


PROXY = Stage("proxy", "Train a proxy that never saw the forget set", stand_in, say)
