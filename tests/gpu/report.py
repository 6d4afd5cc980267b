"""The results of ``python -m tests.gpu.run --out DIR`` as Markdown tables: ``python -m tests.gpu.report DIR``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def format_report(results: dict[str, Any]) -> str:
    """Format all sections: a table of their rows, and the checks that did not pass."""
    lines = [f"Measured on {results['device_name']} ({results['device']}), torch {results['torch']}.", ""]
    for section in results["sections"]:
        lines += [f"### {section['name']}", "", f"{section['does'][:1].upper()}{section['does'][1:]}.", ""]
        if section["state"] != "done":
            lines += [f"{section['state'].capitalize()}: {section['reason']}.", ""]
        lines += format_rows(section["rows"])
        passed = [name for name, outcome in section["checks"].items() if outcome == "passed"]
        others = {name: outcome for name, outcome in section["checks"].items() if outcome != "passed"}
        if section["checks"]:
            lines += [f"{len(passed)} of {len(section['checks'])} checks passed.", ""]
            lines += [f"- {name}: {outcome}" for name, outcome in others.items()] + [""] * bool(others)
    return "\n".join(lines).rstrip() + "\n"


def format_rows(rows: list[dict[str, Any]]) -> list[str]:
    """Format rows as a table; a column for each name that any row has."""
    if not rows:
        return []
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = [names, ["---"] * len(names), *([format_value(row.get(name)) for name in names] for row in rows)]
    return [f"| {' | '.join(cells)} |" for cells in table] + [""]


def format_value(value: Any) -> str:
    """Format a cell: four significant digits, nothing for None."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "results.json").is_file():
        sys.exit(f"usage: {sys.argv[0]} DIR: a folder with results.json, which `make gpu-run` writes")
    print(format_report(json.loads((Path(sys.argv[1]) / "results.json").read_text())), end="")
