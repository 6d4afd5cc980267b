"""All expressions of the dashboards and of the rules, and what they select."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser
import yaml

FOLDER = Path(__file__).resolve().parents[2] / "dashboards"
NAMES = ("generate.json", "train.json", "sweep.json")
RULES = [rule for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"] for rule in group["rules"]]


def read_dashboard(name: str) -> dict[str, Any]:
    tree = json.loads((FOLDER / name).read_text())
    assert isinstance(tree, dict)
    return tree


@dataclass(frozen=True)
class Query:
    """An expression, and the place where it stands."""

    place: str
    expression: str


PANELS = [
    Query(f"{name}: {panel['title']}", target["expr"])
    for name in NAMES
    for panel in read_dashboard(name)["panels"]
    for target in panel["targets"]
]
ALERTS = [Query(rule["alert"], rule["expr"]) for rule in RULES]
QUERIES = PANELS + ALERTS


def find_nodes(node: Any) -> Iterator[Any]:
    """A node of a parsed expression, and all that are below it."""
    yield node
    for name in ("expr", "lhs", "rhs", "args", "vector_selector"):
        below = getattr(node, name, None)
        for each in below if isinstance(below, list) else [below]:
            if each is not None:
                yield from find_nodes(each)


def find_selectors(expression: str) -> list[Any]:
    """The selectors of an expression, such as ``ray_splatfix_workers{run="a"}``."""
    nodes = find_nodes(promql_parser.parse(expression))
    return [node for node in nodes if isinstance(node, promql_parser.VectorSelector)]
