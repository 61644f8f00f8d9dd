# ruff: noqa
import unicodedata, textwrap, difflib, string

print(
    unicodedata.normalize("NFD", "ä").encode(),
    unicodedata.name("🐍"),
    "ß".upper(),
    "İ".lower().encode(),
    "straße".casefold(),
    textwrap.fill("a b c " * 20, 30),
    list(difflib.unified_diff(["a"], ["b"], lineterm="")),
    string.Template("$x").substitute(x=1),
    f"{1234567.891:,.2f}|{255:#x}|{'x':>5}|{3.14159!r:.4}",
)
