# ruff: noqa
import dataclasses as dc, enum, typing


@dc.dataclass(order=True, frozen=True)
class P:
    x: int
    y: typing.List[int] = dc.field(default_factory=list)


class C(enum.Flag):
    A = 1
    B = 2


print(P(1) < P(2), dc.asdict(P(1, [2])), dc.replace(P(1), x=5), repr(C.A | C.B), list(C))
try:
    P(1).x = 2
except dc.FrozenInstanceError as e:
    print(type(e).__name__, e)
