# ruff: noqa
import math

print(
    [math.exp(x / 7) for x in range(5)],
    [math.atan2(x, 3) for x in range(5)],
    math.nextafter(1, 2),
    math.ulp(1.0),
    5e-324 / 2,
    float("nan") != float("nan"),
    (0.1).as_integer_ratio(),
    pow(2.0, 0.5),
    math.log1p(1e-10),
    math.erf(0.3),
)
