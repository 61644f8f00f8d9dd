"""What the programs share: run beside them, on the host as in the sandbox."""

import errno
import os
import sys

__all__ = ["errno", "fails", "os", "sys"]


def fails(function, *arguments, **options):
    """What a call gives, or the name of the errno that it fails with."""
    try:
        return function(*arguments, **options)
    except OSError as error:
        return errno.errorcode[error.errno]
