# ruff: noqa
import math, cmath, fractions, statistics

print(
    0.1 + 0.2,
    2**200,
    -7 // 2,
    -7 % 3,
    round(2.5),
    1e308 * 10,
    math.pi,
    math.gamma(5.5),
    math.fsum([0.1] * 10),
    cmath.sqrt(-1),
    fractions.Fraction(0.1),
    statistics.stdev([1, 2, 4]),
    float.hex(0.1),
    math.sin(1e22),
)
