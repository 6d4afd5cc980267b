"""Every YAML file of cluster/ is valid for the program that reads it, and a misspelt field is found. No network."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cluster_files.checks import (
    CLUSTER,
    CRDS,
    ROOT,
    cluster_spec,
    crd_problems,
    documents,
    groups,
    misspelt,
    problems,
    templates,
    yaml_files,
)

pytest.importorskip("kubernetes_validate")
pytest.importorskip("check_jsonschema")
pytest.importorskip("botocore")

FILES = [path for path in yaml_files() if path.name != "prometheus.yml"]
RAY_FILES = [path for path in FILES if any(map(cluster_spec, documents(path)))]
PINNED = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))


def named(path: Path) -> str:
    return str(path.relative_to(CLUSTER))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_file_is_valid(path: Path) -> None:
    assert [problem for document in documents(path) for problem in problems(path, document)] == []


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_misspelt_field_is_a_problem(path: Path) -> None:
    for document in documents(path):
        for place, changed in misspelt(document, limit=6):
            assert problems(path, changed), f"{place} may be misspelt"


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_misspelt_field_is_a_problem(path: Path) -> None:
    for document in documents(path):
        missed = [place for place, changed in misspelt(document, limit=10_000) if not problems(path, changed)]
        assert missed == []


@pytest.mark.slow
@pytest.mark.skipif(not CRDS.is_dir(), reason="no schemas of KubeRay; set SPLATFIX_CRDS")
@pytest.mark.parametrize("path", RAY_FILES, ids=named)
def test_a_file_is_valid_by_the_schema_of_kuberay(path: Path) -> None:
    assert [problem for document in documents(path) for problem in crd_problems(document)] == []


@pytest.mark.parametrize("path", RAY_FILES, ids=named)
def test_a_ray_cluster_has_the_pinned_ray_and_a_token(path: Path) -> None:
    (document,) = documents(path)
    spec = cluster_spec(document)
    assert spec["rayVersion"] == PINNED["ray"]
    assert spec["authOptions"] == {"mode": "token"}
    head, *workers = groups(document)
    assert head["rayStartParams"]["num-cpus"] == "0", "the head runs drivers, and no tasks"
    assert all(group["minReplicas"] == group["replicas"] == 0 for group in workers), "no GPU node waits for jobs"
    for pod in templates(document):
        mounted = {mount["name"] for mount in pod["spec"]["containers"][0].get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in pod["spec"].get("volumes", [])}


def test_parameters_of_ray_start_exist() -> None:
    spec = importlib.util.find_spec("ray")
    assert spec is not None and spec.origin is not None
    code = (Path(spec.origin).parent / "scripts" / "scripts.py").read_text()  # to import it takes seconds
    options = set(re.findall(r"\"--([a-z-]+)\"", code.split("\ndef start(")[0]))
    assert {"block", "head", "num-cpus"} <= options
    used = {
        name
        for path in RAY_FILES
        for document in documents(path)
        for group in groups(document)
        for name in group["rayStartParams"]
    }
    for path in [*CLUSTER.rglob("*.sh"), *CLUSTER.rglob("*.sbatch"), *FILES]:
        if path.name == "local.sh":
            continue
        for command in re.findall(
            r"(?:ray start|start --head|start --block|ray_node\.sh (?:head|worker)) (.*)", path.read_text()
        ):
            used |= set(re.findall(r"(?<!\S)--([a-z][a-z-]+)", command))
    assert used - options == set()


def test_images_and_names_to_fill_in_are_the_same_everywhere() -> None:
    text = "\n".join(path.read_text() for path in FILES)
    images = set(re.findall(r"(?:image|image_id): (?:docker:)?(REGISTRY\S*)", text))
    assert images == {"REGISTRY/splatfix:TAG", "REGISTRY/splatfix-tracking:TAG"}
    page = (ROOT / "docs" / "cluster.md").read_text()
    for name in ("REGISTRY", "BUCKET", "ACCOUNT", "PROJECT", "AMI", "BOOT_IMAGE"):
        assert re.search(rf"\b{name}\b", text) and re.search(rf"\b{name}\b", page), f"{name}: in files and on the page"


def test_no_file_holds_a_secret_or_listens_to_everybody() -> None:
    for path in FILES:
        text = path.read_text()
        assert not re.search(r"(?i)(password|secret|token)\w*[\"']?: *[\"']?[A-Za-z0-9+]{12,}", text), path
    for name in ("monitoring", "tracking"):
        (compose,) = documents(CLUSTER / name / "compose.yaml")
        for service in compose["services"].values():
            assert service.get("network_mode") == "host" or all(
                "127.0.0.1" in port for port in service.get("ports", [])
            )
            assert "healthcheck" in service
            assert not re.search(r":(latest)?$", service["image"])
    monitoring = yaml.safe_load((CLUSTER / "monitoring" / "compose.yaml").read_text())["services"]
    assert "--web.listen-address=127.0.0.1:9090" in monitoring["prometheus"]["command"]
    assert monitoring["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_accepts_its_config() -> None:
    path = CLUSTER / "monitoring" / "prometheus.yml"
    command = ["promtool", "check", "config", "--syntax-only", "/dev/stdin"]
    done = subprocess.run(command, input=path.read_text(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wrong = path.read_text().replace("file_sd_configs", "file_sd_config")
    assert subprocess.run(command, input=wrong, capture_output=True, text=True).returncode != 0
    rules = yaml.safe_load(path.read_text())["rule_files"]
    assert all((ROOT / "dashboards" / Path(rule).name).is_file() for rule in rules)
