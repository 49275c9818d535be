"""Vectors as types of compiled functions: `load_lanes`, `store_lanes`, `fill_lanes`, +, −, ×.

Loops whose steps depend on those before (running sums) do not become vectors otherwise.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import NativeValue, intrinsic, lower_builtin, models, register_model, typeof_impl, unbox


@dataclass(frozen=True)
class Lanes:
    """The number of lanes of a vector: a function that takes it is compiled for that number."""

    number: int


class _Lanes(types.Opaque):
    def __init__(self, number: int):
        self.number = number
        super().__init__(f"Lanes({number})")


class _Vector(types.Type):
    def __init__(self, element: types.Number, number: int):
        self.element, self.number = element, number
        super().__init__(f"Vector({element}, {number})")


register_model(_Lanes)(models.OpaqueModel)


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        element = manager.lookup(kind.element).get_value_type()
        super().__init__(manager, kind, ir.VectorType(element, kind.number))


@typeof_impl.register(Lanes)
def _typeof(lanes, _):
    return _Lanes(lanes.number)


@unbox(_Lanes)
def _unboxed(_, __, c):
    return NativeValue(c.context.get_dummy_value())


def inside(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function to call in compiled code alone; its first parameter is numba's context and no argument."""
    return intrinsic(function)


@inside
def load_lanes(_, lanes, array, at):
    """The numbers of a contiguous array, of whatever dimensions, from its element `at`."""
    vector = _Vector(array.dtype, lanes.number)

    def code(context, builder, sig, values):
        place = _place(context, builder, sig.args[1], values[1], values[2], vector)
        return builder.load(place, align=array.dtype.bitwidth // 8)

    return vector(lanes, array, at), code


@inside
def store_lanes(_, array, at, vector):
    """Put a vector into a contiguous array, from its element `at`."""

    def code(context, builder, sig, values):
        place = _place(context, builder, sig.args[0], values[0], values[1], vector)
        builder.store(values[2], place, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, at, vector), code


@inside
def fill_lanes(_, lanes, number):
    """The vector with this number in every lane."""
    vector = _Vector(number, lanes.number)

    def code(context, builder, __, values):
        empty = ir.Constant(context.get_value_type(vector), ir.Undefined)
        first = builder.insert_element(empty, values[1], ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes.number), [0] * lanes.number)
        return builder.shuffle_vector(first, empty, zeros)

    return vector(lanes, number), code


@inside
def smaller(_, a, b):
    """The smaller of two numbers, at every place."""

    def code(context, builder, sig, values):
        return builder.select(builder.fcmp_ordered("<", *values, flags=("fast",)), *values)

    return a(a, b), code


@inside
def where_less(_, codes, bounds, vector):
    """The numbers of a vector at whose places the whole number of `codes` is less than that of `bounds`, and
    0 at the others."""

    def code(context, builder, sig, values):
        mask = builder.icmp_signed("<", values[0], values[1])
        return builder.select(mask, values[2], ir.Constant(values[2].type, None))

    return vector(codes, bounds, vector), code


@inside
def less_bits(_, a, b):
    """A whole number whose bits are set at the places where vector a is less than b: `lowest_bit` is the
    first place."""

    def code(context, builder, sig, values):
        bits = builder.bitcast(builder.fcmp_ordered("<", *values), ir.IntType(a.number))
        return builder.zext(bits, ir.IntType(64))

    return types.int64(a, b), code


@inside
def lowest_bit(_, bits):
    """The place of the lowest bit that is set, in a number that is not 0."""

    def code(context, builder, sig, values):
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(bits), code


def _place(context, builder, kind, array, at, vector):
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), context.get_value_type(vector).as_pointer())


for _operator, _name in ((operator.add, "add"), (operator.sub, "sub"), (operator.mul, "mul")):

    @infer_global(_operator)  # pyright: ignore[reportOptionalCall]
    class _OfTwo(AbstractTemplate):
        def generic(self, args, kws):
            equal = len(args) == 2 and isinstance(args[0], _Vector) and args[0] == args[1]
            return signature(args[0], *args) if equal else None

    @lower_builtin(_operator, _Vector, _Vector)
    def _of_two(_, builder, sig, values, name=_name):
        if isinstance(sig.return_type.element, types.Float):
            return getattr(builder, f"f{name}")(*values, flags=("fast",))
        return getattr(builder, name)(*values)
