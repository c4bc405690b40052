"""The one configuration: ``params.yaml`` as a frozen, strict model.

Every section is the parameter class of the code that uses it, so a default is written once. An error in a file is reported
in one line: the key, the value, the rule, and the nearest known key if it looks misspelt.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from megu.core.errors import MeguError
from megu.core.params import STRICT, check
from megu.core.settings import scalars
from megu.core.settings.sections import read
from megu.data.params import DataParams
from megu.data.splits import ForgetParams
from megu.erasure.params import PurgeParams
from megu.evaluation.gate import GateParams
from megu.evaluation.params import EvaluationParams
from megu.labeling import kinds
from megu.lineage.keys import LineageParams
from megu.promotion.params import PromotionParams, RegistryParams
from megu.requests.request import RequestParams
from megu.training.loop import TrainParams
from megu.unlearning.labels.calibration_set import CalibrationParams
from megu.unlearning.labels.perturbing import PerturbParams
from megu.unlearning.methods import lookup, names
from megu.unlearning.noise import NoiseParams


@dataclass(frozen=True, kw_only=True)
class ProvidedParams:
    """Where a model comes from: trained here (neither is set), a weights file, or an MLflow model.

    weights: a file, relative to the project, instead of training: safetensors, or a torch state dictionary (.pt, .pth). If it
        does not state its architecture, ``train.arch`` is assumed.
    model: an MLflow model instead of training: ``models:/name@alias``, ``models:/name/3`` or ``runs:/<run id>/<name>``.
    """

    __pydantic_config__ = STRICT

    weights: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        check("model", self.model, not (self.weights and self.model), "left out when weights is given")

    @property
    def provided(self) -> bool:
        """Whether the model comes from outside."""
        return bool(self.weights or self.model)

    def said(self, section: str) -> str:
        """Return the key that specifies the model and its value, for an error: "original.weights: mine.pt"."""
        return f"{section}.weights: {self.weights}" if self.weights else f"{section}.model: {self.model}"


@dataclass(frozen=True, kw_only=True)
class OriginalParams(ProvidedParams):
    """The model that is to forget."""


@dataclass(frozen=True, kw_only=True)
class ReferenceParams(ProvidedParams):
    """The true retrain that the result is compared with. A provided one (``weights``, ``model``) is a single retrain, of one forget set.

    enabled: whether to retrain, for comparison; without a retrain less can be evaluated, and no run is a pass.
    repeats: number of retrains with different seeds (the first is the run's own); from two on the report has 95% intervals.
    """

    enabled: bool = True
    repeats: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check("repeats", self.repeats, 1 <= self.repeats <= 100, "between 1 and 100")
        check("repeats", self.repeats, self.repeats == 1 or not self.provided, "1 when a retrain is given (weights or model)")
        check("enabled", self.enabled, self.enabled or not self.provided, "true when a retrain is given (weights or model)")


@dataclass(frozen=True)
class UnlearnParams:
    """method: one of the methods that ``megu methods`` lists; the section's other keys are that method's own.
    params: that method's own parameters; in the file both share the section.
    """

    method: str
    params: Any


@dataclass(frozen=True)
class LabelingParams:
    """kind: which labeler scores the similarity: "prototype", "ollama", or a plugin's; the section's other keys are that labeler's own.
    params: that labeler's own parameters; in the file both share the section.
    """

    kind: str
    params: Any


@dataclass(frozen=True)
class Choice:
    """A section whose other keys depend on one of them. key, default: that one. names: its values. params: the parameter class of a
    value.

    made: builds the section's object from a value and its parameters.
    """

    key: str
    default: str
    names: Callable[[], Sequence[str]]
    params: Callable[[str], type[Any]]
    made: Callable[[str, Any], Any]

    def keys(self, value: str) -> list[str]:
        """Return the keys that go with a value."""
        return [entry.name for entry in dataclasses.fields(self.params(value))]

    def validate(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            if dataclasses.is_dataclass(value):
                return value
            raise PydanticCustomError("section", "must be a section with the key {key} and others", {"key": self.key})
        chosen, known = value.get(self.key, self.default), self.names()
        if chosen not in known:
            near = difflib.get_close_matches(str(chosen), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise PydanticCustomError("choice", "there is no such {key}, {hint}", {"key": self.key, "hint": hint})
        own = {name: entry for name, entry in value.items() if name != self.key}
        return self.made(chosen, TypeAdapter(self.params(chosen)).validate_python(own, extra="forbid"))


CHOICES = {
    "unlearn": Choice("method", "megu", names, lambda name: lookup(name).params, UnlearnParams),
    "labeling": Choice("kind", "prototype", kinds.names, lambda name: kinds.lookup(name).params, LabelingParams),
}


def _flat(value: UnlearnParams | LabelingParams) -> dict[str, Any]:
    choice, params = dataclasses.fields(value)
    return {choice.name: getattr(value, choice.name), **dataclasses.asdict(getattr(value, params.name))}


_Unlearn = Annotated[UnlearnParams, PlainValidator(CHOICES["unlearn"].validate), PlainSerializer(_flat)]
_Labeling = Annotated[LabelingParams, PlainValidator(CHOICES["labeling"].validate), PlainSerializer(_flat)]


class Config(BaseModel):
    """A whole run.

    seed: decides everything random; the same seed on the same machine gives the same bits on a CPU.
    device: "auto" (CUDA if available), "cpu", "cuda" or "cuda:1".
    deterministic: the same bits on CUDA too, as on a CPU: slower kernels, and no search for the fastest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, ge=0, lt=2**31)
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    deterministic: bool = False
    data: DataParams = DataParams()
    forget: ForgetParams = ForgetParams()
    original: OriginalParams = OriginalParams()
    train: TrainParams = TrainParams()
    labeling: _Labeling = Field({}, validate_default=True)
    perturbing: PerturbParams = PerturbParams()
    calibration: CalibrationParams = CalibrationParams()
    noise: NoiseParams = NoiseParams()
    unlearn: _Unlearn = Field({}, validate_default=True)
    reference: ReferenceParams = ReferenceParams()
    evaluation: EvaluationParams = EvaluationParams()
    gate: GateParams = GateParams()
    registry: RegistryParams = RegistryParams()
    promotion: PromotionParams = PromotionParams()
    lineage: LineageParams = LineageParams()
    requests: RequestParams = RequestParams()
    purge: PurgeParams = PurgeParams()

    def for_requests(self) -> None:
        """Raise `MeguError` if requests cannot be processed, since they choose the forget set and end in a registered version."""
        self.registry.required()
        if self.reference.provided:
            raise MeguError(
                f"{self.reference.said('reference')} is a retrain of one forget set, and here the requests say what is forgotten",
                "leave it out to have the retrain of each batch trained, or use it with `megu run` and its own forget set",
            )

    def to_json(self) -> dict[str, Any]:
        """Return the whole configuration, defaults included, as in the file."""
        return self.model_dump(mode="json")


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file and apply ``key.key=value`` overrides (values as YAML).

    Raises `MeguError` naming the file or the override, the key and the rule.
    """
    return parse(merged(read(path), overrides), str(path.name), overrides)


def merged(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of ``values`` with each ``section.key=value`` applied."""
    result = {name: dict(entry) if isinstance(entry, Mapping) else entry for name, entry in values.items()}
    for override in overrides:
        name, equals, text = override.partition("=")
        keys = name.strip().split(".")
        if not equals or not all(keys) or len(keys) > (3 if dataclasses.is_dataclass(kind_of(".".join(keys[:2]))) else 2):
            raise MeguError(f"--set {override!r} is not section.key=value", "for example --set unlearn.alpha=0.6")
        try:
            value = scalars.parse(text)
        except yaml.YAMLError:
            raise MeguError(
                f"--set {override!r}: the value is not YAML",
                "for the shell as in --set 'forget.classes=[Bag]', with special characters as in --set 'forget.classes=[\"@home\"]'",
            ) from None
        _put(result, keys, value, override)
    return result


def _put(section: dict[str, Any], keys: Sequence[str], value: Any, override: str, above: str = "") -> None:
    """Set the value of ``keys`` in a copied section, copying nested sections. above: the names of the enclosing sections."""
    name = f"{above}{keys[0]}"
    if len(keys) == 1:
        section[keys[0]] = value
        return
    inner = {} if section.get(keys[0]) is None else section[keys[0]]
    if not isinstance(inner, Mapping):
        text = override.partition("=")[2]
        raise MeguError(f"--set {override!r}: {name} is a single value, not a section", f"--set {name}={text}")
    section[keys[0]] = dict(inner)
    _put(section[keys[0]], keys[1:], value, override, f"{name}.")


def parse(values: Mapping[str, Any], where: str = "configuration", overrides: Sequence[str] = ()) -> Config:
    """Validate; raises `MeguError` with the first error, and the number of further ones. overrides: those included in ``values``;
    an error in one names it instead of ``where``.
    """
    # An empty section in YAML is None and means the defaults.
    given = {name: {} if value is None and name in Config.model_fields else value for name, value in settled(values).items()}
    try:
        return Config.model_validate(given)
    except ValidationError as error:
        first, *others = error.errors()
        what, fix = _in_words(dict(first), given)
        more = f" (and {len(others)} more)" if others else ""
        raise MeguError(f"{source(what, where, overrides)}: {what}{more}", fix) from None


def source(what: str, where: str, overrides: Sequence[str]) -> str:
    """Return where a faulty value came from: the last override of its key, else ``where``. what: begins with the key, or
    "unknown key" and the key.
    """
    key = what.removeprefix("unknown key ").split(" ")[0].rstrip(":")
    for override in reversed(overrides):
        name = override.partition("=")[0].strip()
        if key == name or key.startswith(f"{name}."):
            return f"--set {override}"
    return where


def settled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration's values, with every word that YAML does not read as text resolved by the type of its field
    (`megu.core.settings.scalars`).
    """
    found = {}
    for name, value in values.items():
        if name not in CHOICES or not isinstance(value, Mapping):
            field = Config.model_fields.get(name)
            found[str(name)] = scalars.resolve(value, field.annotation if field else Any)
            continue
        chosen = str(value.get(CHOICES[name].key, CHOICES[name].default))
        found[str(name)] = {str(key): scalars.resolve(entry, kind_of(f"{name}.{key}", chosen)) for key, entry in value.items()}
    return found


def kind_of(key: str, chosen: str = "") -> Any:
    """Return the type of a ``section.key``, from its annotation; ``Any`` when there is none. chosen: the method or labeler that it
    belongs to; without one, the first that has such a key."""
    section, _, inner = key.partition(".")
    kinds: list[Any]
    if section in CHOICES:
        choice = CHOICES[section]
        if inner == choice.key:
            return str
        kinds = [choice.params(name) for name in choice.names() if name == (chosen or name)]
    else:
        kinds = [Any if section not in Config.model_fields else Config.model_fields[section].annotation]
    hints = [get_type_hints(kind) for kind in kinds if dataclasses.is_dataclass(kind)]
    return next((entry[inner] for entry in hints if inner in entry), Any)


T = TypeVar("T")


def validated(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Return another strict dataclass (of `megu.core.params`) from a file's values; raises `MeguError` in one line, as `parse` does."""
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first, *others = error.errors()
        place = [str(part) for part in first["loc"]]
        message = str(first["msg"]).removeprefix("Value error, ")
        if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            known = [entry.name for entry in dataclasses.fields(kind)] if len(place) == 1 else []  # type: ignore[arg-type]
            near = difflib.get_close_matches(place[-1], known, n=1)
            fix = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}" if known else "leave it out"
            raise MeguError(f"{where}: unknown key {'.'.join(place)}", fix) from None
        said = message if first["type"] == "value_error" else f"{first.get('input')!r}: {message[:1].lower()}{message[1:]}"
        more = f" (and {len(others)} more)" if others else ""
        raise MeguError(
            f"{where}: {'.'.join(place)}{': ' if place else ''}{said}{more}", "change it there or with --set"
        ) from None


def _in_words(error: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, str]:
    place = [str(part) for part in error["loc"]]
    key = ".".join(place)
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        owners = _owners(place)
        if owners:
            return f"unknown key {key}", f"it is a key of {' and '.join(owners)}"
        known = _known_keys(place[:-1], given)
        near = difflib.get_close_matches(place[-1], known, n=3, cutoff=0.5)
        return f"unknown key {key}", f"did you mean {' or '.join(near)}?" if near else f"known keys: {', '.join(known)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"{key}.{message}" if " = " in message else f"{key}: {message}", "change it there or with --set"
    value: Any = error.get("input")
    if error["type"] == "choice":  # the error is at the section, but concerns its one key
        choice = CHOICES[place[0]]
        key, value = f"{key}.{choice.key}", value[choice.key]
    if error["type"] == "string_type":
        return (
            f"{key} = {value!r} is not text",
            f'write it in quotes there or with --set, as in {key.rstrip(".0123456789")}=["a: b"]',
        )
    return f"{key} = {value!r}: {message[:1].lower()}{message[1:]}", "change it there or with --set"


def _known_keys(section: Sequence[str], given: Mapping[str, Any]) -> list[str]:
    if not section:
        return list(Config.model_fields)
    if section[0] in CHOICES:
        choice = CHOICES[section[0]]
        own = given.get(section[0])
        return [choice.key, *choice.keys(own.get(choice.key, choice.default) if isinstance(own, Mapping) else choice.default)]
    kind: Any = Config.model_fields[section[0]].annotation
    for name in section[1:]:
        kind = get_type_hints(kind).get(name) if dataclasses.is_dataclass(kind) else None
    return [entry.name for entry in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []


def _owners(place: Sequence[str]) -> list[str]:
    """Return the other choices of a section, as "section.key=choice", that have the key."""
    if len(place) != 2 or place[0] not in CHOICES or place[0] == "unlearn":  # most methods have epochs, lr, …: not helpful
        return []
    choice, found = CHOICES[place[0]], []
    for value in choice.names():
        with suppress(MeguError):  # an unusable plugin must not hide the others
            found += [f"{place[0]}.{choice.key}={value}"] if place[1] in choice.keys(value) else []
    return found
