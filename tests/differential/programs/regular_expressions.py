# ruff: noqa
import re

print(
    re.findall("(?P<w>\\w+)@(\\d+)", "a@1 bc@22 ü@3"),
    re.sub("(?i)HELLO", lambda m: m[0][::-1], "Hello hello"),
    re.split("[,;]\\s*", "a, b;c"),
    re.fullmatch("(a|b)*c", "ababc"),
)
