# ruff: noqa
from common import fails, os

for path in ("none", "none/x", "", "/", ".", "x" * 300, "/dev/null/x"):
    print(
        repr(path[:9]),
        *(
            fails(f, path) if f is not open else str(fails(open, path))[:6]
            for f in (open, os.rmdir, os.readlink, os.unlink)
        ),
    )
try:
    open("/none/file")
except OSError as e:
    print(e, e.filename, type(e).__mro__[1])
