"""Hold the files of cluster/ against the schemas of the programs that read them; unknown fields are problems."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from referencing import Registry, Resource

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
OWN = yaml.safe_load((Path(__file__).parent / "schemas.yaml").read_text())
CRDS = Path(os.environ.get("SPLATFIX_CRDS", ROOT.parent / "shared" / "cluster_drafts" / "schemas"))


def yaml_files() -> list[Path]:
    """Every YAML file of cluster/."""
    return sorted(path for path in CLUSTER.rglob("*") if path.suffix in (".yaml", ".yml"))


def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


def problems(path: Path, document: dict[str, Any]) -> list[str]:
    """What is wrong with a document of a file of cluster/, by the program that reads it."""
    folder = path.relative_to(CLUSTER).parts[0]
    if folder == "kuberay":
        return list(_kubernetes(document))
    if folder in ("aws", "gcp"):
        return list(_launcher(document, folder))
    if folder == "skypilot":
        return _against(OWN["SkyPilot"], document)
    if path.name == "compose.yaml":
        return _against(_compose_schema(), document)
    if path.parent.name in ("datasources", "dashboards"):
        return _against(OWN[f"Grafana{path.parent.name.capitalize()}"], document)
    if path.name == "prometheus.yml":
        return []  # by promtool
    return [f"{path}: no check knows this file"]


def _against(schema: dict[str, Any], document: Any) -> list[str]:
    kind = jsonschema.validators.validator_for(schema)
    return [f"{'/'.join(map(str, error.path))}: {error.message[:200]}" for error in kind(schema).iter_errors(document)]


def _kubernetes(document: dict[str, Any]) -> Iterator[str]:
    kind = document.get("kind", "")
    if kind not in OWN:
        yield from _core(document)
        return
    yield from _against(OWN[kind], document)
    for template in templates(document):
        yield from _core({"apiVersion": "v1", "kind": "Pod", **template})


def cluster_spec(document: dict[str, Any]) -> dict[str, Any]:
    """The part of a RayJob or RayCluster that describes the cluster; empty for other kinds."""
    spec = document.get("spec") or {}
    return {"RayJob": spec.get("rayClusterSpec") or {}, "RayCluster": spec}.get(document.get("kind", ""), {})


def groups(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The groups of nodes of a RayJob or RayCluster, the head's first."""
    spec = cluster_spec(document)
    found = [spec.get("headGroupSpec"), *(spec.get("workerGroupSpecs") or [])]
    return [group for group in found if isinstance(group, dict)]


def templates(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates of a RayJob or RayCluster."""
    return [group["template"] for group in groups(document) if "template" in group]


@lru_cache(maxsize=1)
def _core_schemas() -> tuple[Path, Registry]:
    """The folder with Kubernetes' own schemas, and what they refer to."""
    import kubernetes_validate

    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    newest = max(folder.glob("*-local-strict"), key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)])
    definitions = Resource.from_contents(json.loads((newest / "_definitions.json").read_text()))
    return newest, definitions @ Registry()


def _core(document: dict[str, Any]) -> list[str]:
    """Problems of a document of Kubernetes' own kinds."""
    folder, registry = _core_schemas()
    version = re.sub(r"^([^./]*)[^/]*/", r"\1-", document.get("apiVersion", ""))
    path = folder / f"{document.get('kind', '').lower()}-{version}.json"
    if not path.is_file():
        return [f"no kind {document.get('kind')} of {document.get('apiVersion')}"]
    validator = jsonschema.Draft202012Validator(json.loads(path.read_text()), registry=registry)
    return [f"{'/'.join(map(str, error.path))}: {error.message[:200]}" for error in validator.iter_errors(document)]


def _launcher(document: dict[str, Any], provider: str) -> Iterator[str]:
    """Problems that `ray up` would find, and of the parts that it passes on to the cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(copy.deepcopy(document)))
    except Exception as error:
        yield str(error)[:300]
        return
    for name, node in document.get("available_node_types", {}).items():
        found = _against(OWN["GcpNode"], node["node_config"]) if provider == "gcp" else _ec2(node["node_config"])
        yield from (f"{name}: {problem}" for problem in found)


@lru_cache(maxsize=1)
def _run_instances() -> Any:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    model = ServiceModel(Loader().load_service_model("ec2", "service-2"))
    return model.operation_model("RunInstances").input_shape


def _ec2(node: dict[str, Any]) -> list[str]:
    from botocore.validate import ParamValidator

    found = ParamValidator().validate({"MinCount": 1, "MaxCount": 1, **node}, _run_instances())
    unknown = sorted(_unknown_fields(node, _run_instances()))
    return ([found.generate_report()] if found.has_errors() else []) + [f"unknown field {name}" for name in unknown]


def _unknown_fields(value: Any, shape: Any) -> Iterator[str]:
    if shape.type_name == "list" and isinstance(value, list):
        for item in value:
            yield from _unknown_fields(item, shape.member)
    elif shape.type_name == "structure" and isinstance(value, dict):
        for name, item in value.items():
            if name not in shape.members:
                yield name
            else:
                yield from _unknown_fields(item, shape.members[name])


@lru_cache(maxsize=1)
def _compose_schema() -> dict[str, Any]:
    import check_jsonschema

    folder = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor"
    return json.loads((folder / "compose-spec.json").read_text())


def crd_problems(document: dict[str, Any]) -> list[str]:
    """Problems of a RayJob or RayCluster by KubeRay's own schema, if that is on this machine."""
    crd = yaml.load((CRDS / f"crd_{document['kind'].lower()}.yaml").read_text(), Loader=yaml.CSafeLoader)
    (schema,) = [each["schema"] for each in crd["spec"]["versions"] if each["name"] == "v1"]
    strict = _strict(schema["openAPIV3Schema"])
    strict["properties"]["metadata"] = {}
    return [error.message[:200] for error in jsonschema.Draft7Validator(strict).iter_errors(document)]


def _strict(schema: Any) -> Any:
    """An OpenAPI schema as Kubernetes applies it: unknown fields are refused."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(each) for name, each in schema.items()}
    if strict.get("x-kubernetes-int-or-string"):
        strict.pop("type", None)
    keeps = strict.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in strict
    if strict.get("type") == "object" and "properties" in strict and not keeps:
        strict["additionalProperties"] = False
    return strict


# maps whose keys are the writer's own names
FREE = {
    "labels",
    "annotations",
    "matchLabels",
    "nodeSelector",
    "rayStartParams",
    "requests",
    "limits",
    "envs",
    "secrets",
}
FREE |= {"services", "volumes", "environment", "available_node_types", "depends_on", "file_mounts", "provider"}
FREE |= {"CPU", "GPU"}


def misspelt(document: dict[str, Any], limit: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Copies of a document, each with another field misspelt: at most ``limit``, spread over the document."""
    places = [place for place in _fields(document, ()) if not _is_free(place)]
    for place in places[:: max(1, -(-len(places) // limit))]:
        changed = copy.deepcopy(document)
        parent = changed
        for step in place[:-1]:
            parent = parent[step]
        parent[f"{place[-1]}x"] = parent.pop(place[-1])
        yield "/".join(map(str, place)), changed


def _is_free(place: tuple[Any, ...]) -> bool:
    return bool(FREE & {str(place[-1]), *map(str, place[-2:-1])}) or "/" in str(place[-1])  # "/": in a label


def _fields(value: Any, place: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield (*place, name)
            yield from _fields(item, (*place, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _fields(item, (*place, number))
