"""The path from the model back to the data, as text and as Mermaid."""

from __future__ import annotations

from collections.abc import Sequence

from megu.core import escaping
from megu.lineage.record import Record


def text(records: Sequence[Record], model: str | None = None) -> str:
    """Return a tree: the model at the top and, below each item, what it was made of. An item shown before is only named."""
    by_label = {record.label: record for record in records}
    tops = _ends(records)
    lines, shown = [], set[str]()

    def walk(label: str, indent: str, last: bool) -> None:
        record = by_label[label]
        lines.append(f"{indent}{'└─ ' if last else '├─ '}{describe(record)}{' (above)' if label in shown else ''}")
        if label in shown:
            return
        shown.add(label)
        parents = list(record.parents)
        for number, parent in enumerate(parents, 1):
            walk(parent, indent + ("   " if last else "│  "), number == len(parents))

    if model and "unlearn" in by_label:
        lines.append(model)
        walk("unlearn", "", True)
    for label in tops:
        if label not in shown:
            walk(label, "", True)
    return "\n".join(lines)


def _ends(records: Sequence[Record]) -> list[str]:
    """Return the records from which nothing else was made."""
    used = {parent for record in records for parent in record.parents}
    return [record.label for record in records if record.label not in used]


def describe(record: Record) -> str:
    """Describe a record in a few words: its label, its outputs by hash, and its name if it has one."""
    outs = [f"{name} {ref.sha256[:12]}" for name, ref in record.refs.items()]
    if len(outs) > 3:
        outs = [f"{len(outs)} files"]
    name = [f"{record.values['name']}, DVC {record.values['dvc_hash']}"] if "dvc_hash" in record.values else []
    kept = " [kept]" if record.circumstances.get("cached") else ""
    return f"{record.label}: {', '.join([*name, *outs]) or record.result_digest[:12]}{kept}"


def mermaid(records: Sequence[Record], model: str | None = None) -> str:
    """Return a Mermaid flowchart with the data on the left."""
    names = {record.label: f"s{number}" for number, record in enumerate(records)}
    lines = ["flowchart LR"]
    for record in records:
        first = next(iter(record.refs.values()), None)
        digest = str(record.values.get("dvc_hash") or (first.sha256 if first else record.result_digest))[:12]
        shape = ("[(", ")]") if record.stage == "dataset" else ("[", "]")
        lines.append(
            f'  {names[record.label]}{shape[0]}"{escaping.mermaid(record.label)}<br/>{escaping.mermaid(digest)}"{shape[1]}'
        )
    for record in records:
        lines += [f"  {names[parent]} --> {names[record.label]}" for parent in record.parents]
    if model and "unlearn" in names:
        lines += [f'  model(["{escaping.mermaid(model)}"])', f"  {names['unlearn']} --> model"]
    return "\n".join(lines)
