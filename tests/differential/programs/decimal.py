# ruff: noqa
import decimal as d

d.getcontext().prec = 50
print(
    d.Decimal(2).sqrt(),
    d.Decimal(1) / 7,
    d.Decimal("1e-99") * 3,
    d.Decimal("NaN").is_nan(),
    d.Decimal("2.675").quantize(d.Decimal(".01")),
)
