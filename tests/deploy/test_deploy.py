"""What a team deploys: checked against Prefect's own schemas, without a server, a Docker or a Kubernetes."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import prefect.server.api
import pytest
import yaml
from prefect import states
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import get_current_settings
from prefect.utilities.templating import find_placeholders

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "process": ROOT / "prefect.yaml",
    "docker": ROOT / "deploy" / "prefect.docker.yaml",
    "kubernetes": ROOT / "deploy" / "prefect.kubernetes.yaml",
}
WORKERS = json.loads(
    (Path(prefect.server.api.__file__).parent / "collections_data" / "views" / "aggregate-worker-metadata.json").read_text()
)
POOL = json.loads((ROOT / "deploy" / "kubernetes-pool.json").read_text())


def template(kind: str) -> dict[str, Any]:
    """The base job template of a kind of worker: ours for Kubernetes, Prefect's own for the others."""
    own: dict[str, Any] = {name: entry for package in WORKERS.values() for name, entry in package.items()}
    return POOL if kind == "kubernetes" else own[kind]["default_base_job_configuration"]  # type: ignore[no-any-return]


def deployments() -> list[Any]:
    return [
        pytest.param(kind, entry, id=f"{kind}-{entry['name']}")
        for kind, path in FILES.items()
        for entry in yaml.safe_load(path.read_text())["deployments"]
    ]


@pytest.mark.parametrize(("kind", "deployment"), deployments())
def test_a_deployment_is_one_that_prefect_takes(kind: str, deployment: dict[str, Any]) -> None:
    path, _, name = deployment["entrypoint"].partition(":")
    flow = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)
    asked = [deployment["parameters"], *(entry.get("parameters", {}) for entry in deployment.get("schedules", []))]
    for parameters in asked:
        flow.validate_parameters({**deployment["parameters"], **parameters})
    ConcurrencyOptions(collision_strategy=deployment["concurrency_limit"]["collision_strategy"])
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    variables = template(kind)["variables"]
    given = deployment["work_pool"].get("job_variables", {})
    assert set(given) <= set(variables["properties"])
    jsonschema.Draft202012Validator({**variables, "required": []}).validate(given)


def test_prefect_loads_the_flows_of_a_project_that_megu_init_made() -> None:
    from prefect.flows import load_flow_from_entrypoint

    made = yaml.safe_load((ROOT / "megu" / "scaffold" / "templates" / "prefect.yaml").read_text())["deployments"]
    for entry in made:
        assert load_flow_from_entrypoint(entry["entrypoint"], use_placeholder_flow=False).name == entry["name"]


@pytest.mark.parametrize(("kind", "deployment"), deployments())
def test_schedules_have_names_and_times_and_settings_that_hold(kind: str, deployment: dict[str, Any]) -> None:
    from megu.config.tree import merged as with_settings
    from megu.config.tree import parse

    slugs = [schedule["slug"] for schedule in deployment.get("schedules", [])]
    assert len(set(slugs)) == len(slugs)
    assert bool(slugs) == (deployment["name"] == "process")
    for schedule in deployment.get("schedules", []):
        DeploymentScheduleCreate(
            schedule=CronSchedule(cron=schedule["cron"], timezone=schedule["timezone"]),
            slug=schedule["slug"],
            active=schedule["active"],
            parameters=schedule.get("parameters", {}),
        )
        parse(with_settings({}, {**deployment["parameters"], **schedule.get("parameters", {})}["settings"]))


@pytest.mark.parametrize(("kind", "deployment"), deployments())
def test_a_run_of_a_deployment_is_one_that_the_automations_look_for(kind: str, deployment: dict[str, Any]) -> None:
    """Prefect's own heartbeats come every 180 s: a run that keeps to that would be marked as crashed while it lives."""
    automations = {
        entry["name"]: entry for entry in yaml.safe_load((ROOT / "tasks" / "prefect" / "automations.yaml").read_text())
    }
    died, never = automations["megu: a run died without a word"], automations["megu: a run never began"]
    for entry in (died, never):
        assert entry["trigger"]["match_related"] == {"prefect.resource.id": f"prefect.tag.{deployment['tags'][0]}"}
        assert entry["state"]["state"] == "CRASHED"
        assert set(entry["trigger"]["after"]) <= set(entry["trigger"]["expect"]), "or Prefect does not begin anew"
    every = int(deployment["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    assert 2 * every < died["trigger"]["within"]
    assert "prefect.flow-run.Running" in set(died["trigger"]["after"]) & set(never["trigger"]["expect"])
    pending = {
        f"prefect.flow-run.{state().name}" for state in (states.Pending, states.Submitting, states.InfrastructurePending)
    }
    assert set(never["trigger"]["after"]) == pending, "whatever a worker calls it"
    lease = get_current_settings().server.concurrency.initial_deployment_lease_duration
    assert never["trigger"]["within"] < lease, "later the slot may be another run's, and would be taken from it"


@pytest.mark.parametrize("path", FILES.values(), ids=list(FILES))
def test_where_the_code_is_is_said(path: Path) -> None:
    steps = yaml.safe_load(path.read_text())["pull"]
    assert [list(step) for step in steps] == [["prefect.deployments.steps.set_working_directory"]]


def test_the_kubernetes_template_uses_its_variables_and_mounts_the_project() -> None:
    configuration, known = POOL["job_configuration"], set(POOL["variables"]["properties"])
    assert {placeholder.name for placeholder in find_placeholders(configuration)} <= known
    jsonschema.Draft202012Validator.check_schema(POOL["variables"])
    pod = configuration["job_manifest"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert pod["securityContext"]["runAsNonRoot"]
    base = template_of_prefect()
    assert set(base["variables"]["properties"]) <= known
    assert set(base["job_configuration"]) == set(configuration)


def template_of_prefect() -> dict[str, Any]:
    return WORKERS["prefect-kubernetes"]["kubernetes"]["default_base_job_configuration"]  # type: ignore[no-any-return]


def test_the_kubernetes_objects_are_whole_and_refer_to_each_other() -> None:
    objects = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text()))
    kinds = {entry["kind"]: entry for entry in objects}
    assert all(entry["apiVersion"] and entry["metadata"]["name"] for entry in objects)
    assert all(entry["metadata"].get("namespace") == "megu" for entry in objects if entry["kind"] != "Namespace")
    assert kinds["RoleBinding"]["roleRef"]["name"] == kinds["Role"]["metadata"]["name"]
    pod = kinds["Deployment"]["spec"]["template"]
    assert kinds["Deployment"]["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    claims = [volume.get("persistentVolumeClaim", {}).get("claimName") for volume in
              POOL["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["volumes"]]  # fmt: skip
    assert kinds["PersistentVolumeClaim"]["metadata"]["name"] in claims
    assert "Secret" not in kinds


def test_compose_binds_to_this_machine_and_has_no_login_in_it() -> None:
    text = (ROOT / "deploy" / "compose.yaml").read_text()
    composed = yaml.safe_load(text)
    services, named = composed["services"], composed["volumes"]
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert set(service["networks"]) <= set(composed["networks"])
        assert set(service.get("depends_on", [])) <= set(services)
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in named or (ROOT / "deploy" / source).is_file()
    secrets = [word for word in text.split() if "PASSWORD" in word and "{" in word]
    assert secrets
    assert all("${MEGU_DB_PASSWORD:?" in word for word in secrets)
    docker = yaml.safe_load(FILES["docker"].read_text())["deployments"][0]["work_pool"]["job_variables"]
    assert docker["networks"] == [composed["networks"]["megu"]["name"]]
    assert docker["volumes"][0].partition(":")[0] == named["project"]["name"]
    assert {docker["image"]} == {service["image"] for name, service in services.items() if name != "database"}


def test_the_automations_are_ones_that_prefect_takes() -> None:
    from uuid import uuid4

    from tasks.prefect.automations import read

    path, block = ROOT / "tasks" / "prefect" / "automations.yaml", uuid4()
    plain, told = read(path, None), read(path, block)
    assert len({automation.name for automation in plain}) == len(plain) == 5
    assert [automation.actions[0].type for automation in plain] == ["do-nothing"] * 3 + ["change-flow-run-state"] * 2
    assert [automation.actions[0].type for automation in told] == ["send-notification"] * 3 + ["change-flow-run-state"] * 2


def test_what_is_told_to_prefect_is_what_the_automations_listen_for() -> None:
    source = (ROOT / "tasks" / "prefect" / "signals.py").read_text()
    for entry in yaml.safe_load((ROOT / "tasks" / "prefect" / "automations.yaml").read_text())[:3]:
        (event,) = entry["trigger"]["expect"]
        assert f'"{event}"' in source
