"""Vector types of 16 numbers for numba kernels.

numba has scalars and arrays, and does not guarantee that it vectorizes a loop. These types are values of 16 float32 and
of 16 booleans, with the operators that the kernels need, so that inner loops compile to vector instructions. On a
processor with shorter vectors, LLVM uses two or four for each. Operations are rounded as written, except that
``a * b + c`` may become a fused multiply-add.

Operators: ``+ - * /`` and comparisons of float lanes, where one side may be a float32; ``&`` of booleans. The functions
are at the end of the file; they can be called in kernels only.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.typing.templates import ConcreteTemplate, Signature, infer_global
from numba.extending import lower_builtin, models, register_model

from splatfix.jit import kernel

LANES = 16
_F32, _I32, _I1 = ir.FloatType(), ir.IntType(32), ir.IntType(1)
_FLOATS, _INTS, _BOOLS = (ir.VectorType(kind, LANES) for kind in (_F32, _I32, _I1))


class FloatLanes(types.Type):
    """16 float32."""

    def __init__(self) -> None:
        super().__init__("FloatLanes")


class BoolLanes(types.Type):
    """16 booleans."""

    def __init__(self) -> None:
        super().__init__("BoolLanes")


floats, bools = FloatLanes(), BoolLanes()


def _register(kind: type[types.Type], vector: ir.VectorType) -> None:
    class Model(models.PrimitiveModel):
        def __init__(self, manager, front_end_type) -> None:
            super().__init__(manager, front_end_type, vector)

    register_model(kind)(Model)


_register(FloatLanes, _FLOATS)
_register(BoolLanes, _BOOLS)


def _constant(value: float, vector: ir.VectorType = _FLOATS) -> ir.Constant:
    return ir.Constant(vector, [ir.Constant(vector.element, value)] * LANES)


def _broadcast(builder, scalar):
    nothing = ir.Constant(_FLOATS, ir.Undefined)
    one = builder.insert_element(nothing, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, nothing, ir.Constant(_INTS, [0] * LANES))


def _intrinsic(builder, name: str, *values):
    """Call an LLVM intrinsic that works on every lane of floats."""
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * len(values))
    return builder.call(get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32"), values)


def _declare(function: Callable, *signatures: Signature) -> None:
    """Let ``function`` be called in kernels with these types."""

    class Template(ConcreteTemplate):
        key = function
        cases = list(signatures)  # noqa: RUF012 - numba's form

    infer_global(function, types.Function(Template))


def _define(function: Callable, emit: Callable, *signatures: Signature) -> None:
    """Compile ``function`` in kernels to ``emit(builder, *values)``. Scalars beside lanes are broadcast."""
    _declare(function, *signatures)

    def lower(_context, builder, called, values):
        pairs = zip(values, called.args, strict=True)
        return emit(builder, *(_broadcast(builder, value) if kind == types.float32 else value for value, kind in pairs))

    for each in signatures:
        lower_builtin(function, *each.args)(lower)


def _placeholder() -> Any:
    """Make a function that only kernels can call."""

    def placeholder(*_given):
        raise TypeError("vectors of lanes exist in compiled kernels only")

    return placeholder


def _make_function(emit: Callable, *signatures: Signature) -> Any:
    """Make a function for kernels, defined as in `_define`."""
    function = _placeholder()
    _define(function, emit, *signatures)
    return function


_FLOAT_PAIRS = ((floats, floats), (floats, types.float32), (types.float32, floats))


def _arithmetic(name: str) -> Callable:
    return lambda builder, a, b: getattr(builder, name)(a, b, flags=("contract",))


def _comparison(sign: str) -> Callable:
    return lambda builder, a, b: builder.fcmp_ordered(sign, a, b)


for _name, _instruction in (("add", "fadd"), ("sub", "fsub"), ("mul", "fmul"), ("truediv", "fdiv")):
    for _operator in (getattr(operator, _name), getattr(operator, f"i{_name}")):
        _define(_operator, _arithmetic(_instruction), *(floats(*pair) for pair in _FLOAT_PAIRS))
for _operator, _sign in ((operator.ge, ">="), (operator.gt, ">"), (operator.le, "<="), (operator.lt, "<")):
    _define(_operator, _comparison(_sign), *(bools(*pair) for pair in _FLOAT_PAIRS))
_define(operator.and_, lambda builder, a, b: builder.and_(a, b), bools(bools, bools))


_ARRAYS = (types.float32[::1], types.Array(types.float32, 1, "C", readonly=True))  # a kernel's constants are read-only


def _lanes_pointer(context, builder, kinds, values):
    """Return the pointer to 16 numbers of an array, from an index on."""
    data = context.make_array(kinds[0])(context, builder, values[0]).data
    return builder.bitcast(builder.gep(data, [values[1]]), _FLOATS.as_pointer())


def _make_memory_function(lower: Callable, result: types.Type, *rest: types.Type) -> Any:
    """Make a function for kernels with the arguments array, index and ``rest``."""
    function = _placeholder()
    signatures = [result(array, types.uint64, *rest) for array in _ARRAYS]
    _declare(function, *signatures)
    for each in signatures:
        lower_builtin(function, *each.args)(lower)
    return function


def _load(context, builder, called, values):
    loaded = builder.load(_lanes_pointer(context, builder, called.args, values))
    loaded.align = 4
    return loaded


def _store(context, builder, called, values):
    builder.store(values[2], _lanes_pointer(context, builder, called.args, values), align=4)
    return context.get_dummy_value()


def _first_lanes(builder, num):
    """Return booleans that are true in the first ``num`` lanes."""
    ranks = ir.Constant(_INTS, list(range(LANES)))
    wanted = builder.insert_element(ir.Constant(_INTS, ir.Undefined), builder.trunc(num, _I32), ir.Constant(_I32, 0))
    return builder.icmp_signed("<", ranks, builder.shuffle_vector(wanted, wanted, ir.Constant(_INTS, [0] * LANES)))


def _load_part(context, builder, called, values):
    pointer, which = _lanes_pointer(context, builder, called.args, values), _first_lanes(builder, values[2])
    kind = ir.FunctionType(_FLOATS, [pointer.type, _I32, _BOOLS, _FLOATS])
    masked = get_or_insert_function(builder.module, kind, f"llvm.masked.load.v{LANES}f32.p0")
    return builder.call(masked, [pointer, ir.Constant(_I32, 4), which, _constant(0.0)])


def _store_part(context, builder, called, values):
    pointer, which = _lanes_pointer(context, builder, called.args, values), _first_lanes(builder, values[3])
    kind = ir.FunctionType(ir.VoidType(), [_FLOATS, pointer.type, _I32, _BOOLS])
    masked = get_or_insert_function(builder.module, kind, f"llvm.masked.store.v{LANES}f32.p0")
    builder.call(masked, [values[2], pointer, ir.Constant(_I32, 4), which])
    return context.get_dummy_value()


def _prefetch(context, builder, called, values):
    pointer = _lanes_pointer(context, builder, called.args, values)
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
    hint = get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(hint, [pointer, *(ir.Constant(_I32, value) for value in (0, 3, 1))])  # to read, soon and often, data
    return context.get_dummy_value()


def _sum_lanes(builder, *vectors):
    """Fold pairs of vectors into one, halving the lanes of each partial sum, until every sum takes one lane."""
    rows = list(vectors)
    for half in (8, 4, 2, 1):
        rows += [_constant(0.0)] * (len(rows) % 2)
        low = [start + lane for start in range(0, 2 * LANES, 2 * half) for lane in range(half)]
        halves = [ir.Constant(_INTS, low), ir.Constant(_INTS, [lane + half for lane in low])]
        rows = [
            builder.fadd(*(builder.shuffle_vector(one, other, which) for which in halves))
            for one, other in zip(rows[::2], rows[1::2], strict=True)
        ]
    return rows[0]


# 2^f for -1/2 <= f <= 1/2, relative error 8e-8 (minimax)
_POWERS = (0.001327647203, 0.00967554148, 0.05550713275, 0.2402211972, 0.6931469671, 1.000000072)
_ROUND = 1.5 * 2**23  # added to a float32, leaves its nearest integer in the low bits


def _exp2(builder, x):
    moved = builder.fadd(x, _constant(_ROUND))
    f = builder.fsub(x, builder.fsub(moved, _constant(_ROUND)))
    power = _constant(_POWERS[0])
    for coefficient in _POWERS[1:]:
        power = _intrinsic(builder, "fmuladd", power, f, _constant(coefficient))
    exponent = builder.shl(builder.bitcast(moved, _INTS), _constant(23, _INTS))
    return builder.bitcast(builder.add(builder.bitcast(power, _INTS), exponent), _FLOATS)


def _bits(builder, bools):
    return builder.zext(builder.bitcast(bools, ir.IntType(LANES)), ir.IntType(64))


# ``minimum(a, b)`` and ``maximum(a, b)`` per lane; ``b`` where ``a`` is NaN
minimum = _make_function(lambda b, x, y: b.select(b.fcmp_ordered("<", x, y), x, y), *(floats(*p) for p in _FLOAT_PAIRS))
maximum = _make_function(lambda b, x, y: b.select(b.fcmp_ordered(">", x, y), x, y), *(floats(*p) for p in _FLOAT_PAIRS))
# ``select(bools, a, b)``: ``a`` where true, else ``b``
select = _make_function(
    lambda builder, which, a, b: builder.select(which, a, b),
    *(floats(bools, *pair) for pair in (*_FLOAT_PAIRS, (types.float32, types.float32))),
)
# ``broadcast(number)``: the number in every lane
broadcast = _make_function(lambda _builder, wide: wide, floats(types.float32))
square_root = _make_function(lambda builder, x: _intrinsic(builder, "sqrt", x), floats(floats))
# ``exp2(a)``: 2^a for -126 <= a <= 127; undefined elsewhere
exp2 = _make_function(_exp2, floats(floats))
# ``bits(bools)``: bit k of a uint64 for lane k
bits = _make_function(_bits, types.uint64(bools))
# ``lowest_bit(number)``: index of the lowest bit that is set in a uint64 (not 0); ``count_bits(number)``: their number
lowest_bit = _make_function(lambda builder, x: builder.cttz(x, ir.Constant(_I1, 1)), types.uint64(types.uint64))
count_bits = _make_function(lambda builder, x: builder.ctpop(x), types.uint64(types.uint64))
# ``sum_lanes(a, b, ...)``: the sum of each of up to 16 vectors, in that order, then zeros
sum_lanes = _make_function(_sum_lanes, *(floats(*[floats] * num) for num in range(1, LANES + 1)))
# ``load(array, i)``, ``store(array, i, lanes)``: 16 consecutive numbers of a flat float32 array; ``i`` is a uint64
load = _make_memory_function(_load, floats)
store = _make_memory_function(_store, types.none, floats)
# ``load_part(array, i, num)``, ``store_part(array, i, lanes, num)``: only the first ``num`` (int64); others load as 0
load_part = _make_memory_function(_load_part, floats, types.int64)
store_part = _make_memory_function(_store_part, types.none, floats, types.int64)
# ``prefetch(array, i)``: start to load the numbers around ``i`` into the cache
prefetch = _make_memory_function(_prefetch, types.none)


@kernel()
def allocate_aligned(num):
    """Allocate a float32 array ``[num]`` that starts at a cache line, so that no vector crosses two."""
    buffer = np.empty(num + LANES, np.float32)
    start = (-buffer.ctypes.data // 4) % LANES
    return buffer[start : start + num]
