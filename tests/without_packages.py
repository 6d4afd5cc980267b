"""Run splatfix as if packages were not installed: ``python -m tests.without_packages ray,mlflow fit CAPTURE ...``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class FinderWithout:
    """Finds modules as Python does, but for those of some packages."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = frozenset(packages)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return None if name.partition(".")[0] in self.packages else PathFinder.find_spec(name, path, target)

    find_distributions = staticmethod(PathFinder.find_distributions)


if __name__ == "__main__":
    sys.meta_path[sys.meta_path.index(PathFinder)] = FinderWithout(sys.argv[1].split(","))  # type: ignore[arg-type]
    from splatfix.cli import main

    sys.exit(main(sys.argv[2:]))
