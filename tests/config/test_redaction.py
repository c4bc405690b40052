"""A request that names samples is not told to Prefect, which shows what a flow was called with."""

from __future__ import annotations

from megu.bench import config as files
from megu.config import tree as config
from megu.config.redaction import names_samples, redact_settings, redacted, store_redacted, told
from megu.core.project import Project


def test_what_names_samples_goes_into_a_file_of_the_owners(project: Project) -> None:
    asked = ["forget.scenario=ids", f"forget.ids=[{'a' * 32}]", "unlearn.alpha=0.6"]
    path, changes = redact_settings(project, project.params, asked)
    assert changes == []
    assert path.parent == project.home / "private"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "a" * 32 not in path.name
    assert config.load(path) == config.load(project.params, asked)
    assert redact_settings(project, project.params, asked)[0] == path
    assert redact_settings(project, project.params, ["forget.files=[cat/1.png]", "forget.scenario=ids"])[0] != path
    assert redact_settings(project, project.params, [f"forget={{scenario: ids, ids: [{'a' * 32}]}}"])[1] == []


def test_what_names_none_is_left_as_it_is(project: Project) -> None:
    asked = ["forget.classes=[Bag]", "unlearn.alpha=0.6"]
    assert redact_settings(project, project.params, asked) == (project.params, asked)
    assert not project.home.exists()


def test_a_benchmark_and_its_settings_are_told_without_samples(project: Project) -> None:
    named = "a" * 32
    for setting in (f"forget.ids=[{named}]", f"targets=[{{ids: [{named}]}}]", f"base={{forget: {{ids: [{named}]}}}}"):
        assert names_samples(setting)
        assert named not in told(setting)
    for setting in ("targets=[{classes: [Bag]}]", "base={train: {epochs: 1}}", "seeds=[0]", "unlearn.alpha=0.6"):
        assert not names_samples(setting)
        assert told(setting) == setting
    hidden = redacted(
        project, {"base": {"forget": {"ids": [], "count": 3}}, "targets": ({"ids": [named], "files": ["cat/1"]},)}
    )
    assert hidden["base"] == {"forget": {"ids": [], "count": 3}}
    assert [len(one) for one in (*hidden["targets"][0]["ids"], *hidden["targets"][0]["files"])] == [64, 64]
    assert redacted(project, {"seeds": (0, 1), "name": "x"}) == {"seeds": [0, 1], "name": "x"}
    bench = project.root / "small.yaml"
    bench.write_text("methods: [finetune]\n")
    kept = store_redacted(project, files.read(bench, [f"targets=[{{scenario: ids, ids: [{named}]}}]"]))
    assert files.load(kept) == files.load(bench, [f"targets=[{{scenario: ids, ids: [{named}]}}]"])
    assert kept.stat().st_mode & 0o777 == 0o600
