"""Compiles modules for an image; run as a program of its own, one for each processor, by ``pyvmm.template.bytecode``.

Reads a pickled list of ``(file name, source)`` from stdin, writes a pickled list of ``.pyc`` contents, ``None`` for
what is not valid Python. The header says *unchecked hash* (PEP 552): the guest then compares nothing and makes no
``stat`` of the source.
"""

import importlib.util
import marshal
import pickle
import sys
import warnings

_UNCHECKED_HASH = (0b01).to_bytes(4, "little")


def compile_module(name: str, source: bytes) -> bytes | None:
    """The contents of the ``.pyc`` for a module whose file is called ``name``."""
    try:
        code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    digest = importlib.util.source_hash(source)
    return b"".join((importlib.util.MAGIC_NUMBER, _UNCHECKED_HASH, digest, marshal.dumps(code)))


def main() -> None:
    """Compiles what stdin brings."""
    warnings.simplefilter("ignore")
    modules = pickle.load(sys.stdin.buffer)
    pickle.dump([compile_module(name, source) for name, source in modules], sys.stdout.buffer)


if __name__ == "__main__":
    main()
