# ruff: noqa
from common import sys

import locale

print(
    locale.getlocale(),
    locale.setlocale(locale.LC_ALL, ""),
    locale.localeconv()["decimal_point"],
    sys.getfilesystemencoding(),
    sys.stdout.encoding,
    sys.stdin.encoding,
    locale.getpreferredencoding(),
    sys.flags.utf8_mode,
)
