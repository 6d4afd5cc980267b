"""Every annotation of the package resolves.

Annotations are text until something reads them, and beartype, which checks types in these tests, accepts any value
where an annotation does not resolve. A missing import would turn such a check off silently.
"""

import ast
import importlib
import pkgutil
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import splatfix

MODULES = sorted(module.name for module in pkgutil.walk_packages(splatfix.__path__, "splatfix."))
MODULES.remove("splatfix.__main__")  # runs a command where it is imported
Imports = list[ast.Import | ast.ImportFrom]


def annotations(node: ast.AST, imports: Imports) -> Iterator[tuple[ast.expr, Imports]]:
    """All annotations below ``node``, each with the imports that only functions around it or type checkers execute."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        for annotation in [*(each.annotation for each in arguments if each is not None), node.returns]:
            if annotation is not None:
                yield annotation, imports
        imports = imports + [each for each in ast.walk(node) if isinstance(each, ast.Import | ast.ImportFrom)]
    elif isinstance(node, ast.AnnAssign):
        yield node.annotation, imports
    for child in ast.iter_child_nodes(node):
        yield from annotations(child, imports)


def imports_for_type_checkers(tree: ast.Module) -> Imports:
    """The imports of a module under ``if TYPE_CHECKING``."""
    blocks = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    return [each for block in blocks for each in block.body if isinstance(each, ast.Import | ast.ImportFrom)]


def names_in(annotation: ast.AST) -> set[str]:
    """The names in an annotation, also in quoted parts of it."""
    names = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    quoted = [node.value for node in ast.walk(annotation) if isinstance(node, ast.Constant)]
    return names | {text for text in quoted if isinstance(text, str) and text.isidentifier()}


def unresolved(source: str, module: types.ModuleType) -> list[str]:
    """The annotations in the source of ``module`` that name something it neither has nor imports."""
    tree = ast.parse(source)
    errors = []
    for annotation, imports in annotations(tree, imports_for_type_checkers(tree)):
        text, namespace = ast.unparse(annotation), dict(vars(module))
        names = names_in(annotation) - namespace.keys()
        for each in imports:
            if names & {alias.asname or alias.name for alias in each.names}:
                exec(ast.unparse(each), namespace)
        try:
            typing.get_type_hints(type("Annotated", (), {"__annotations__": {"it": text}}), namespace)
        except Exception as error:
            errors.append(f"line {annotation.lineno}: {text}: {error}")
    return errors


@pytest.mark.parametrize("name", MODULES)
def test_annotations_resolve(name):
    module = importlib.import_module(name)
    assert module.__file__ is not None
    errors = unresolved(Path(module.__file__).read_text(encoding="utf-8"), module)
    assert not errors, f"{module.__file__}: " + "; ".join(errors)


def test_an_annotation_without_its_import_is_found():
    module = types.ModuleType("example")
    missing = "from __future__ import annotations\ndef f(fit: Fit) -> list[Fit]:\n    def g(fit: Fit): pass\n"
    exec(missing, vars(module))
    assert [error.split(":")[0] for error in unresolved(missing, module)] == ["line 2", "line 2", "line 3"]
    local = missing.replace("    def", "    from splatfix.splats.train import Fit\n    def")
    assert [error.split(":")[0] for error in unresolved(local, module)] == ["line 2", "line 2"]
    checked = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from splatfix.splats.train import Fit\n"
    assert unresolved(checked + missing.partition("\n")[2], module) == []
