"""The kernels' decorator."""

from __future__ import annotations

from splatfix.rendering.cpu.compile import kernel


def test_compiles_where_nothing_can_be_cached() -> None:
    """A function without a file stands for an install and a home that cannot be written."""
    names: dict = {}
    exec(compile("def double(x):\n    return 2 * x\n", "<nowhere>", "exec"), names)
    assert kernel()(names["double"])(21) == 42
