"""What a dossier says, in the forms that other tools read: pure functions from a dossier and its records to files.

Nothing is added to what the dossier holds, so an export may go wherever the dossier may: it names no sample. It is made on demand and
not stored in MLflow, where it would be one more copy of the dossier to verify.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from megu.core.errors import MeguError
from megu.lineage.export import card, intoto, openlineage, prov
from megu.lineage.reading import Found

if TYPE_CHECKING:
    from megu.lineage.keys import Ed25519PrivateKey

Exporter = Callable[[Found, "Ed25519PrivateKey | None"], Mapping[str, bytes]]

#: Form -> the function that makes its files.
EXPORTERS: Mapping[str, Exporter] = {
    "openlineage": openlineage.export,
    "prov": prov.export,
    "intoto": intoto.export,
    "model-card": card.export,
}
ALL = "all"


def exported(found: Found, form: str, key: Ed25519PrivateKey | None) -> dict[str, bytes]:
    """Return the files of one form, or of all of them (`ALL`), by name. key: signs what can be signed.

    Raises `MeguError` for an unknown form.
    """
    if form != ALL and form not in EXPORTERS:
        raise MeguError(f"there is no export {form}", f"--format is one of {', '.join([*EXPORTERS, ALL])}")
    chosen: Sequence[str] = tuple(EXPORTERS) if form == ALL else (form,)
    return {name: content for which in chosen for name, content in EXPORTERS[which](found, key).items()}
