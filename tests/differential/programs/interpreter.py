# ruff: noqa
from common import sys

print(
    sys.version,
    sys.flags,
    sys.maxsize,
    sys.implementation.name,
    sys.getrecursionlimit(),
    sys.float_info.max,
    sys.int_info,
    sys.hash_info.width,
    sys.dont_write_bytecode,
    sys.warnoptions,
    sys.flags.hash_randomization,
    sys.api_version,
)
