"""Methods of other installed packages, with real entry points in a real ``.dist-info``."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from method_fixtures import context, points
from plugin_fixtures import Install
from torch import nn

from megu.cli import main as cli
from megu.config import tree as config
from megu.core import plugins
from megu.core.errors import MeguError
from megu.core.stages import Code, Stage, differences
from megu.unlearning import methods

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = re.search(
    r"```python\n(# one file: .*?)```", (REPOSITORY / "docs/how-to/own-method.md").read_text(), flags=re.DOTALL
).group(1)  # type: ignore[union-attr]


def example(install: Install, version: str = "1.2") -> Path:
    """The documented example, with a helper of its own."""
    text = EXAMPLE.replace("batch_size: int = 64", "batch_size: int = SIZE").replace(
        "import torch.nn", "from my_package.helper import SIZE\nimport torch.nn"
    )
    return install("my_package", {"ascent": text, "helper": "SIZE = 2\n"}, {"ascent": "my_package.ascent:METHOD"}, version)


def test_the_documented_example_is_found_configured_and_run(install: Install) -> None:
    example(install)
    assert methods.names() == [*methods.METHODS, "ascent"]
    assert "my_package.ascent" not in sys.modules, "a list of names imports nothing"
    made = config.parse({"unlearn": {"method": "ascent", "lr": 0.5}}).unlearn
    assert (made.method, made.params.epochs, made.params.lr) == ("ascent", 1, 0.5)

    start = [[1.0, -0.5], [0.3, 0.8]]
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = torch.tensor(start)
    forget = points([[255, 51], [204, 102]], [0, 0])
    found = methods.lookup("ascent").run(nn.Sequential(nn.Flatten(), model), forget, forget, context(made.params, 2))
    x, weight = forget.batch(slice(None)).flatten(1), torch.tensor(start)
    climbed = weight + 0.5 * (torch.softmax(x @ weight.T, dim=1) - torch.tensor([1.0, 0.0])).T @ x / 2
    torch.testing.assert_close(found[1].weight.data, climbed, rtol=1e-2, atol=1e-2)
    assert torch.equal(model.weight.data, weight)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"method": "ascend"}, "did you mean ascent?"),
        ({"method": "ascent", "epoch": 2}, "unknown key unlearn.epoch: did you mean epochs?"),
        ({"method": "ascent", "alpha": 2}, "known keys: method, epochs, batch_size, lr"),
    ],
)
def test_its_settings_are_checked_as_ours_are(install: Install, section: dict[str, object], said: str) -> None:
    example(install)
    with pytest.raises(MeguError) as caught:
        config.parse({"unlearn": section})
    assert said in str(caught.value)


def test_its_code_its_version_and_ours_are_in_the_cache_key(install: Install) -> None:
    folder = example(install)

    def compute(code: Code) -> None: ...

    stage = Stage("unlearn", "", compute)  # type: ignore[arg-type]

    def parts() -> dict[str, object]:
        return stage.parts({"code": Code(methods.code("ascent"))})

    first = parts()
    assert {
        "code my_package.ascent",
        "code my_package.helper",
        "code megu.unlearning.methods.common",
        "code megu.training.loop",
    } <= set(first)
    assert not any("scrub" in name for name in first), "another method's code changes nothing"
    (folder / "helper.py").write_text("# a comment\nSIZE = 2\n")
    assert parts() == first
    (folder / "helper.py").write_text("SIZE = 3\n\n")
    assert differences(first, parts()) == ["code my_package.helper changed"]
    shutil.rmtree(folder.parent / "my_package-1.2.dist-info")
    example(install, "1.3")
    assert differences(first, parts()) == ["package my_package was 1.2, is 1.3"]


def test_only_the_code_of_the_method_that_is_used_is_in_the_key() -> None:
    assert "megu.unlearning.methods.baselines.scrub" in methods.code("scrub")
    assert "megu.unlearning.methods.baselines.scrub" not in methods.code("ssd")
    assert "megu.unlearning.methods" not in methods.code("scrub"), "a new entry in the registry reruns nothing"


BROKEN = {
    "its import fails": ({"bad": "import nothing_like_this\n"}, "bad:METHOD", "No module named 'nothing_like_this'"),
    "its module is not there": ({}, "absent:METHOD", "cannot be imported"),
    "it has no such attribute": ({"bad": ""}, "bad:METHOD", "AttributeError"),
    "it divides by zero": ({"bad": "1 / 0\n"}, "bad:METHOD", "ZeroDivisionError"),
    "it is no method": ({"bad": "METHOD = print\n"}, "bad:METHOD", "not a megu.unlearning.methods.Method"),
    "its params are no dataclass": (
        {
            "bad": "from megu.unlearning.methods import Method\nMETHOD = Method(params=int, run=print, title='', paper='', cost='')\n"
        },
        "bad:METHOD",
        "not a dataclass",
    ),
    "it needs what there is not": (
        {"bad": EXAMPLE.replace("needs=()", "needs=('labels',)")},
        "bad:METHOD",
        "it needs labels, but a method can need only perturbing, noise, retain, train_recipe",
    ),
    "a parameter has no default": ({"bad": EXAMPLE.replace("lr: float = 1e-4", "lr: float")}, "bad:METHOD", "no default"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_named_with_its_package_and_breaks_nothing_else(case: str, install: Install) -> None:
    modules, entry, said = BROKEN[case]
    install("sad_package", modules, {"sad": f"sad_package.{entry}"})
    example(install)
    with pytest.warns(UserWarning, match=r"'sad' of sad_package 1\.2") as caught:
        assert set(methods.methods()) == {*methods.METHODS, "ascent"}
    assert said in str(caught[0].message)
    with pytest.raises(MeguError, match="sad_package") as raised:
        config.parse({"unlearn": {"method": "sad"}})
    assert said in str(raised.value)
    assert config.parse({"unlearn": {"method": "scrub"}}).unlearn.method == "scrub"


def test_a_plugin_cannot_take_the_place_of_a_built_in_method(install: Install) -> None:
    install("my_package", {"ascent": EXAMPLE}, {"megu": "my_package.ascent:METHOD"})
    assert methods.lookup("megu") is methods.METHODS["megu"]
    assert methods.names() == list(methods.METHODS)


def test_without_plugins_there_is_nothing_to_find() -> None:
    assert all(plugins.plugins(group) == {} for group in plugins.GROUPS)
    assert methods.methods() == methods.METHODS
    with pytest.raises(KeyError):
        methods.lookup("nothing")


def test_the_command_lists_plugins_and_says_which_are_broken(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    example(install)
    install("sad_package", {"bad": "1 / 0\n"}, {"sad": "sad_package.bad:METHOD"})
    assert cli.guarded(lambda: cli.app(["methods", "--json"], standalone_mode=False)) == 0
    streams = capsys.readouterr()
    rows = {row["name"]: row for row in json.loads(streams.out)["methods"]}
    assert list(rows) == [*methods.METHODS, "ascent"]
    assert rows["ascent"]["params"] == {"epochs": 1, "batch_size": 2, "lr": 1e-4}
    assert rows["scrub"]["params"]["temperature"] == 4.0
    assert rows["megu"]["needs"] == ["perturbing", "noise", "retain"]
    assert streams.err.startswith("megu: the megu.methods plugin 'sad' of sad_package 1.2")
    assert streams.err.count("\n") == 1
    assert cli.guarded(lambda: cli.app(["methods"], standalone_mode=False)) == 0
    assert "parameters: epochs=1, batch_size=2, lr=0.0001" in capsys.readouterr().out


def test_one_more_of_our_own_is_one_file_and_one_line(tmp_path: Path) -> None:
    """The documented other way, on a copy of the package."""
    shutil.copytree(REPOSITORY / "megu", tmp_path / "megu", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "megu" / "unlearning" / "methods" / "ascent.py").write_text(EXAMPLE)
    registry = tmp_path / "megu" / "unlearning" / "methods" / "__init__.py"
    text = registry.read_text()
    last = f'        "{list(methods.METHODS)[-1]}",\n'
    assert text.count(last) == 1
    registry.write_text(text.replace(last, f'{last}        "ascent",\n'))
    program = """if True:
        from megu.config import tree
        from megu.unlearning import methods
        print(*methods.METHODS)
        tree.parse({'unlearn': {'method': 'ascent'}})
    """
    place = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=place, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*methods.METHODS, "ascent"]
