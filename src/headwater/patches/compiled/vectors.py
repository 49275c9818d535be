"""Vectors of so many numbers in a row, told to the compiler as such, inside compiled functions: `load`, `store`, `spread`, +, −, ×.

Loops whose steps depend on those before (running sums) are not seen to be vectors otherwise.
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
    """How many numbers a vector has: a compiled function that is given it is compiled for that many."""

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
    """A function for compiled ones alone; its first parameter, numba's own, is not among its arguments."""
    return intrinsic(function)


@inside
def load(_, lanes, array, at):
    """The numbers of a contiguous array, of whatever dimensions, from its element `at`."""
    vector = _Vector(array.dtype, lanes.number)

    def code(context, builder, given, values):
        place = _place(context, builder, given.args[1], values[1], values[2], vector)
        return builder.load(place, align=array.dtype.bitwidth // 8)

    return vector(lanes, array, at), code


@inside
def store(_, array, at, vector):
    """Put a vector into a contiguous array, from its element `at`."""

    def code(context, builder, given, values):
        place = _place(context, builder, given.args[0], values[0], values[1], vector)
        builder.store(values[2], place, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, at, vector), code


@inside
def spread(_, lanes, number):
    """The vector that has this number everywhere."""
    vector = _Vector(number, lanes.number)

    def code(context, builder, __, values):
        whole = ir.Constant(context.get_value_type(vector), ir.Undefined)
        first = builder.insert_element(whole, values[1], ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes.number), [0] * lanes.number)
        return builder.shuffle_vector(first, whole, zeros)

    return vector(lanes, number), code


@inside
def smaller(_, one, other):
    """The smaller of two numbers, at every place."""

    def code(context, builder, given, values):
        return builder.select(builder.fcmp_ordered("<", *values, flags=("fast",)), *values)

    return one(one, other), code


@inside
def where_less(_, codes, bounds, vector):
    """The numbers of a vector at whose places the whole number of `codes` is less than that of `bounds`, and 0 at the others."""

    def code(context, builder, given, values):
        less = builder.icmp_signed("<", values[0], values[1])
        return builder.select(less, values[2], ir.Constant(values[2].type, None))

    return vector(codes, bounds, vector), code


@inside
def less(_, one, other):
    """At which places one vector is less than another, as the bits of a whole number: `lowest` says which is the first."""

    def code(context, builder, given, values):
        found = builder.bitcast(builder.fcmp_ordered("<", *values), ir.IntType(one.number))
        return builder.zext(found, ir.IntType(64))

    return types.int64(one, other), code


@inside
def lowest(_, bits):
    """The place of the lowest bit that is set, of a number that is not 0."""

    def code(context, builder, given, values):
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(bits), code


def _place(context, builder, kind, array, at, vector):
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), context.get_value_type(vector).as_pointer())


for _operator, _name in ((operator.add, "add"), (operator.sub, "sub"), (operator.mul, "mul")):

    @infer_global(_operator)  # pyright: ignore[reportOptionalCall]
    class _OfTwo(AbstractTemplate):
        def generic(self, args, kws):
            alike = len(args) == 2 and isinstance(args[0], _Vector) and args[0] == args[1]
            return signature(args[0], *args) if alike else None

    @lower_builtin(_operator, _Vector, _Vector)
    def _of_two(_, builder, given, values, name=_name):
        if isinstance(given.return_type.element, types.Float):
            return getattr(builder, f"f{name}")(*values, flags=("fast",))
        return getattr(builder, name)(*values)
