"""The names of the checks: the one that a check gives itself, and the one that it is reported under where it could not be carried out."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

from megu.lineage.verify import checks, replay, tracked
from megu.lineage.verify.run import name_of


def own_names() -> Iterator[tuple[str, str]]:
    """The name after the function, as `megu.lineage.verify.run.guarded` gives it, and each that the function gives itself."""
    for module in (checks, tracked, replay):
        for function in ast.parse(inspect.getsource(module)).body:
            if isinstance(function, ast.FunctionDef) and not function.name.startswith("_"):
                named = [
                    node.value
                    for node in ast.walk(function)
                    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "name"
                ]
                calls = [node for node in ast.walk(function) if isinstance(node, ast.Call) and node.args]
                named += [
                    call.args[0]
                    for call in calls
                    if ast.unparse(call.func).rpartition(".")[2] in ("Check", "summed", "without_erased")
                ]
                for value in named:
                    if isinstance(value, ast.Constant):
                        yield name_of(getattr(module, function.name)), value.value


def test_a_check_that_could_not_be_carried_out_is_reported_under_the_name_it_has_otherwise() -> None:
    found = list(own_names())
    assert len({name for name, _ in found}) > 8
    assert [pair for pair in found if pair[0] != pair[1]] == []
