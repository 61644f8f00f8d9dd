"""How the C structures of ``linux/kvm.h`` are written down in Python.

A structure is a class whose annotations are its fields, in the order of the header::

    @layout
    class KvmDtable(Struct):
        base: u64
        limit: u16
        padding: Annotated[Array[c_uint16], c_uint16 * 3]

``Annotated[..., T]`` gives the ctypes type, ``Annotated[..., T, 3]`` a bit field of three bits; a structure stands for
itself. A class whose name begins with ``Kvm`` is the C structure of the same name (``KvmPitState2`` is
``struct kvm_pit_state2``); every other class is a structure that has no name in C either, only a place inside one.

Padding is spelled out as in the header and nothing is packed, so that the layout is the compiler's.
"""

import ctypes
from ctypes import Array, c_int8, c_int16, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self, TypeVar, cast

__all__ = ["FlexibleStruct", "Struct", "Union", "layout", "s8", "s16", "s32", "s64", "u8", "u16", "u32", "u64"]

u8 = Annotated[int, c_uint8]
u16 = Annotated[int, c_uint16]
u32 = Annotated[int, c_uint32]
u64 = Annotated[int, c_uint64]
s8 = Annotated[int, c_int8]
s16 = Annotated[int, c_int16]
s32 = Annotated[int, c_int32]
s64 = Annotated[int, c_int64]

_T = TypeVar("_T", bound=type)


def layout(cls: _T) -> _T:
    """Class decorator: set ``_fields_`` of a ctypes structure or union from its annotations.

    A decorator, because ``__init_subclass__`` runs before ctypes has prepared the class.
    """
    fields = []
    for name, annotation in cls.__annotations__.items():
        metadata = getattr(annotation, "__metadata__", None)
        if metadata is not None:
            fields.append((name, *metadata))
        elif isinstance(annotation, type):
            fields.append((name, annotation))
    cast("Any", cls)._fields_ = fields
    return cls


def decoded(value: Any) -> str:
    """One field as text: small numbers in decimal, others in hex, byte arrays without their trailing zeros."""
    if isinstance(value, int):
        return str(value) if -10 < value < 10 else hex(value)
    if isinstance(value, Array):
        if getattr(value, "_type_", None) is c_uint8:
            return repr(bytes(value).rstrip(b"\0").hex(" "))
        return f"[{', '.join(decoded(item) for item in value)}]"
    return repr(value)


def is_padding(name: str) -> bool:
    return name.startswith(("pad", "reserved", "dummy"))


class _Decoded:
    """Mixin: ``repr()`` that prints the fields decoded and leaves padding out."""

    __slots__ = ()
    _fields_: Any

    def shown(self) -> list[str]:
        """The names of the fields that ``repr()`` prints."""
        return [field[0] for base in reversed(type(self).__mro__) for field in base.__dict__.get("_fields_", ())]

    def __repr__(self) -> str:
        names = dict.fromkeys(name for name in self.shown() if not is_padding(name))
        fields = ", ".join(f"{name}={decoded(getattr(self, name))}" for name in names)
        return f"{type(self).__name__}({fields})"


class Struct(_Decoded, ctypes.Structure):
    """A C structure. Misspelt fields raise AttributeError."""

    __slots__ = ()


class Union(_Decoded, ctypes.Union):
    """A C union; ``repr()`` prints its first member."""

    __slots__ = ()

    def shown(self) -> list[str]:
        return super().shown()[:1]


class FlexibleStruct(Struct):
    """A C structure that ends in a flexible array.

    The class itself has no element (as in C); ``sized(n)`` makes one with room for ``n``.
    """

    __slots__ = ()
    _count_: ClassVar[str]
    """The field that tells the kernel how many elements there are."""
    _room_: ClassVar[int] = 0
    """How many elements there is memory for."""

    @classmethod
    def sized(cls, count: int) -> Self:
        """A zeroed structure with ``count`` elements, its count field set."""
        structure = cast("type[Self]", _sized_type(cls, count))()
        setattr(structure, cls._count_, count)
        return structure

    @classmethod
    def from_entries(cls, entries: Any) -> Self:
        """A structure that holds a copy of ``entries`` (an iterable of elements)."""
        items = list(entries)
        structure = cls.sized(len(items))
        getattr(structure, structure._fields_[-1][0])[:] = items
        return structure

    def check_room(self) -> None:
        """Raise ValueError if the count field promises more than there is: the kernel would read beyond the end."""
        count = getattr(self, self._count_)
        if count > self._room_:
            raise ValueError(f"{type(self).__name__}.{self._count_} is {count}, but it has room for {self._room_}")


@lru_cache(maxsize=256)
def _sized_type(cls: type[FlexibleStruct], count: int) -> type[FlexibleStruct]:
    name, element = cls._fields_[-1][0], cls._fields_[-1][1]._type_
    # The base ends where its array of no elements begins, so that the new array takes that very place.
    return type(cls.__name__, (cls,), {"__slots__": (), "_room_": count, "_fields_": [(name, element * count)]})
