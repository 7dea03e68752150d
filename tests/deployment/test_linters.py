"""Every file of `docker/` before the tool that would judge it first: linters, schemas and validators that come as packages."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pydantic
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from kd_ray.cli.serve_command import serve_command
from tests.deployment.kuberay import KINDS, cluster_of, pod_templates

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
KUBERNETES = "1.33"
SCRIPTS = sorted(path for path in DOCKER.rglob("*") if path.suffix in {".sh", ".sbatch"})
MANIFESTS = sorted((DOCKER / "kubernetes").glob("*.yaml"))
CLOUDS = sorted((DOCKER / "cloud").glob("*.yaml"))


def tool(name: str) -> str:
    """A program of this environment, also where its folder is not on the PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is missing; `make install-dev` installs it"
    return found


def run(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **options)


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            yield f"{path.name}:{document['kind']}/{document['metadata']['name']}", document


DOCUMENTS = dict(documents())
RAY_DOCUMENTS = {name: document for name, document in DOCUMENTS.items() if document["apiVersion"].startswith("ray.io")}


def test_the_dockerfile_passes_hadolint() -> None:
    done = run(tool("hadolint"), str(DOCKER / "Dockerfile"))
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_finds_a_package_without_a_version(tmp_path: Path) -> None:
    """The linter is alive: what it is there for, it finds."""
    file = tmp_path / "Dockerfile"
    file.write_text("FROM debian:12\nRUN apt-get update && apt-get install -y --no-install-recommends curl\n")
    assert "DL3008" in run(tool("hadolint"), str(file)).stdout


def test_the_images_are_pinned_by_digest_and_end_as_a_user() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    assert re.search(r"^ARG BASE=python:3\.12\.\d+-slim-bookworm@sha256:[0-9a-f]{64}$", text, flags=re.MULTILINE)
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    assert all(stage.startswith(("${BASE} ", "packages", "runtime ")) for stage in stages)
    for target in ("cpu", "cuda", "cloud"):
        (stage,) = (stage for stage in stages if stage.startswith(f"runtime AS {target}\n"))
        users = re.findall(r"^USER (.+)$", stage, flags=re.MULTILINE)
        assert users[-1:] in ([], ["10001:10001"])
        # Built elsewhere: no compiler and no installer comes in with what is copied.
        assert "pip" not in stage
        assert "build-essential" not in stage
    (runtime,) = (stage for stage in stages if " AS runtime\n" in stage)
    assert "USER 10001:10001" in runtime
    assert "HEALTHCHECK" in runtime
    assert "pip uninstall" in runtime


def test_everything_that_the_dockerfile_copies_is_let_into_the_context() -> None:
    copied = [
        source
        for line in re.findall(r"^COPY (.+)$", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
        if "--from" not in line
        for source in [word for word in line.split() if not word.startswith("--")][:-1]
    ]
    allowed = {line.removeprefix("!") for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()}
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source in allowed


def test_an_image_gets_the_extras_that_a_build_asks_for() -> None:
    def printed(*extras: str) -> list[str]:
        return run(sys.executable, "make/requirements.py", *extras, cwd=ROOT).stdout.splitlines()

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert printed() == project["dependencies"]
    extras = project["optional-dependencies"]
    assert printed("text", "models") == [*project["dependencies"], *extras["text"], *extras["models"]]
    refused = run(sys.executable, "make/requirements.py", "txt", cwd=ROOT)
    assert refused.returncode == 1
    assert re.fullmatch(r"EXTRAS: txt is none of export, hub, models, .*\n", refused.stderr)


@pytest.mark.parametrize("profile", ["", "gpu"])
def test_the_compose_file_is_taken_by_docker_compose(profile: str) -> None:
    arguments = ["--profile", profile] if profile else []
    command = (tool("docker-compose"), "-f", str(DOCKER / "compose.yaml"), *arguments, "config")
    done = run(*command)
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == {"head", "worker", "store", "serve"} | ({"gpu-worker"} if profile else set())
    for name, service in services.items():
        published = [port["host_ip"] for port in service.get("ports", [])]
        assert set(published) <= {"127.0.0.1"}, name
        assert service["cap_drop"] == ["ALL"]
        assert service["deploy"]["resources"]["limits"]["memory"]
    assert not services["worker"].get("ports")
    # The site has neither the token of the cluster nor its data.
    assert {it["source"] for it in services["serve"]["secrets"]} == {"store_key", "store_secret", "serve_token"}
    assert not services["serve"].get("volumes")
    for name in set(services) - {"store"}:
        assert services[name]["environment"]["RAY_AUTH_MODE"] == "token"


def test_the_compose_file_holds_no_secret() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    raw = yaml.safe_load(text)
    assert all(set(secret) == {"file"} for secret in raw["secrets"].values())
    values = {str(value) for service in raw["services"].values() for value in service.get("environment", {}).values()}
    assert not any(re.fullmatch(r"[0-9A-Za-z/+]{20,}", value) for value in values)


def test_docker_compose_refuses_a_field_that_does_not_exist(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text((DOCKER / "compose.yaml").read_text().replace("init: true", "inits: true"))
    done = run(tool("docker-compose"), "-f", str(file), "config", "-q")
    assert done.returncode != 0
    assert "inits" in done.stderr


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_passes_shellcheck(path: Path) -> None:
    done = run(tool("shellcheck"), str(path))
    assert (done.returncode, done.stdout) == (0, "")
    assert path.stat().st_mode & 0o111, "not executable"


def test_all_scripts_are_looked_at() -> None:
    assert {path.name for path in SCRIPTS} == {"node.sh", "make-secrets.sh", "make-certificates.sh", "sweep.sbatch"}


@pytest.mark.parametrize("name", sorted(DOCUMENTS.keys() - RAY_DOCUMENTS.keys()))
def test_a_manifest_fits_the_schema_of_kubernetes(name: str) -> None:
    kubernetes_validate.validate(DOCUMENTS[name], KUBERNETES, strict=True)


@pytest.mark.parametrize("name", RAY_DOCUMENTS)
def test_a_manifest_of_kuberay_has_only_fields_of_its_reference_and_valid_pods(name: str) -> None:
    document = KINDS[RAY_DOCUMENTS[name]["kind"]].model_validate(RAY_DOCUMENTS[name])
    for use, template in pod_templates(document).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": use, **template.get("metadata", {})}}
        kubernetes_validate.validate({**pod, "spec": template["spec"]}, KUBERNETES, strict=True)


def test_a_misspelled_field_of_kuberay_is_refused() -> None:
    raw = yaml.safe_load((DOCKER / "kubernetes" / "raycluster.yaml").read_text())
    raw["spec"]["authOption"] = raw["spec"].pop("authOptions")
    with pytest.raises(pydantic.ValidationError, match="authOption"):
        KINDS["RayCluster"].model_validate(raw)


@pytest.mark.parametrize("name", RAY_DOCUMENTS)
def test_pods_are_closed_and_bounded(name: str) -> None:
    """What the "restricted" standard of Kubernetes asks for, limits for all, and secrets by reference only."""
    document = KINDS[RAY_DOCUMENTS[name]["kind"]].model_validate(RAY_DOCUMENTS[name])
    auth = cluster_of(document).authOptions
    assert (auth.mode, auth.secretName) == ("token", "kd-ray-token")
    for template in pod_templates(document).values():
        security = template["spec"]["securityContext"]
        assert security["runAsNonRoot"]
        assert security["runAsUser"] == 10001
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in template["spec"]["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(container["resources"]["limits"]) >= {"cpu", "memory"}
            plain = {entry["name"] for entry in container.get("env", []) if "value" in entry}
            assert not any(re.search("SECRET|KEY|TOKEN|PASSWORD", variable) for variable in plain)


def test_the_site_is_closed_bounded_and_has_a_token() -> None:
    spec = DOCUMENTS["serve.yaml:Deployment/kd-ray-serve"]["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    (container,) = spec["containers"]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    assert [it["secretRef"]["name"] for it in container["envFrom"]] == ["kd-ray-store", "kd-ray-serve"]
    service = DOCUMENTS["serve.yaml:Service/kd-ray-serve"]["spec"]
    labels = DOCUMENTS["serve.yaml:Deployment/kd-ray-serve"]["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()


@pytest.mark.parametrize(
    "command",
    [
        yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["serve"]["command"],
        DOCUMENTS["serve.yaml:Deployment/kd-ray-serve"]["spec"]["template"]["spec"]["containers"][0]["args"],
    ],
    ids=["compose", "kubernetes"],
)
def test_the_command_of_the_site_is_one_of_kd_ray(command: list[str]) -> None:
    assert command[:2] == ["kd-ray", "serve"]
    given = serve_command.make_context("serve", [*command[2:], "--token", "a" * 32, "--store", "s3://sweeps"]).params
    assert (given["host"], given["port"]) == ("0.0.0.0", 8080)


def test_the_cluster_grows_with_demand_and_has_gpu_workers_on_spot() -> None:
    document = KINDS["RayCluster"].model_validate(RAY_DOCUMENTS["raycluster.yaml:RayCluster/kd-ray"])
    cluster = cluster_of(document)
    assert cluster.enableInTreeAutoscaling
    groups = {group.groupName: group for group in cluster.workerGroupSpecs}
    assert groups["gpu-spot"].minReplicas == 0
    (container,) = groups["gpu-spot"].template["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_every_image_of_the_manifests_is_one_of_ours_and_every_policy_selects_pods_that_exist() -> None:
    text = "\n".join(path.read_text() for path in MANIFESTS)
    assert set(re.findall(r"image: (\S+)", text)) == {f"registry.example.org/kd-ray:{kind}" for kind in ("cpu", "cuda")}
    policies = [document for document in DOCUMENTS.values() if document["kind"] == "NetworkPolicy"]
    closed = next(policy for policy in policies if policy["metadata"]["name"] == "closed")
    assert closed["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.stem)
def test_a_cloud_file_is_taken_by_rays_own_validator(path: Path) -> None:
    config = prepare_config(yaml.safe_load(path.read_text()))
    validate_config(config)
    nodes = config["available_node_types"]
    assert nodes[config["head_node_type"]]["max_workers"] == 0
    assert nodes[config["head_node_type"]]["resources"] == {"CPU": 0}
    assert nodes["gpu_spot"]["min_workers"] == 0
    assert config["provider"]["use_internal_ips"]
    assert "--env=RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    text = path.read_text()
    assert "--dashboard-host=127.0.0.1" in text
    assert "0.0.0.0" not in text


def test_workers_in_the_clouds_are_spot_and_bring_their_own_security_group() -> None:
    aws, gcp = (yaml.safe_load((DOCKER / "cloud" / f"{name}.yaml").read_text()) for name in ("aws", "gcp"))
    worker = aws["available_node_types"]["gpu_spot"]["node_config"]
    assert worker["InstanceMarketOptions"] == {"MarketType": "spot"}
    # Without one, Ray would make a group that opens SSH to 0.0.0.0/0.
    assert all(node["node_config"]["SecurityGroupIds"] for node in aws["available_node_types"].values())
    assert gcp["available_node_types"]["gpu_spot"]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert not any(
        "accessConfigs" in interface
        for node in gcp["available_node_types"].values()
        for interface in node["node_config"]["networkInterfaces"]
    )


def test_rays_validator_refuses_a_field_that_does_not_exist() -> None:
    raw = yaml.safe_load(CLOUDS[0].read_text())
    raw["head_start_ray_command"] = []
    with pytest.raises(Exception, match="head_start_ray_command"):
        validate_config(prepare_config(raw))
