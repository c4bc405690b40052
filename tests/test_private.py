"""A request that names samples is not told to Prefect, which shows what a flow was called with."""

from __future__ import annotations

from megu import config
from megu.private import apart
from megu.project import Project


def test_what_names_samples_goes_into_a_file_of_the_owners(project: Project) -> None:
    asked = ["forget.scenario=ids", f"forget.ids=[{'a' * 32}]", "unlearn.alpha=0.6"]
    path, changes = apart(project, project.params, asked)
    assert changes == []
    assert path.parent == project.home / "private"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "a" * 32 not in path.name
    assert config.load(path) == config.load(project.params, asked)
    assert apart(project, project.params, asked)[0] == path
    assert apart(project, project.params, ["forget.files=[cat/1.png]", "forget.scenario=ids"])[0] != path
    assert apart(project, project.params, [f"forget={{scenario: ids, ids: [{'a' * 32}]}}"])[1] == []


def test_what_names_none_is_left_as_it_is(project: Project) -> None:
    asked = ["forget.classes=[Bag]", "unlearn.alpha=0.6"]
    assert apart(project, project.params, asked) == (project.params, asked)
    assert not project.home.exists()
