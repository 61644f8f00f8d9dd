"""Byte code for all modules of an image, compiled on all processors and kept by content."""

import hashlib
import os
import pickle
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from pyvmm.errors import TemplateError
from pyvmm.template import compile_worker
from pyvmm.template.cache import TemplateCache
from pyvmm.template.interpreter import Interpreter, clean_environment

_FORMAT = 1


def compile_modules(interpreter: Interpreter, sources: Mapping[str, bytes], cache: TemplateCache) -> dict[str, bytes]:
    """The ``.pyc`` contents for modules, by their path in the guest; what is not valid Python is left out.

    Files and line numbers in tracebacks are those of the guest. The result is kept in the cache under the digest of
    all sources, so one changed module compiles its whole set again: call this once for the standard library and once
    for the packages.
    """
    names = sorted(sources)
    digest = hashlib.sha256(f"{_FORMAT}|{interpreter.build}|{interpreter.cache_tag}".encode())
    for name in names:
        digest.update(name.encode() + b"\0" + hashlib.sha256(sources[name]).digest())
    kept = cache.layer_file("bytecode", digest.hexdigest()[:32])
    try:
        return msgspec.msgpack.decode(kept.read_bytes(), type=dict[str, bytes])
    except (OSError, msgspec.DecodeError):
        pass
    compiled = compile_now(interpreter, sources)
    cache.write_file(kept, msgspec.msgpack.encode(compiled))
    return compiled


def compile_now(interpreter: Interpreter, sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same, without the cache: for modules that change often."""
    shares = _shares(sorted(sources), sources, os.cpu_count() or 1)
    with ThreadPoolExecutor(len(shares) or 1) as pool:
        results = pool.map(lambda share: _compile(interpreter.executable, [(n, sources[n]) for n in share]), shares)
        return {
            name: code
            for share, codes in zip(shares, results, strict=True)
            for name, code in zip(share, codes, strict=True)
            if code is not None
        }


def pyc_path(interpreter: Interpreter, module: str) -> str:
    """Where the byte code of a module belongs: ``a/b.py`` to ``a/__pycache__/b.cpython-311.pyc``."""
    folder, _, file = module.rpartition("/")
    return f"{folder}/__pycache__/{file.removesuffix('.py')}.{interpreter.cache_tag}.pyc"


def _shares(names: list[str], sources: Mapping[str, bytes], count: int) -> list[list[str]]:
    """Splits the modules into shares of about equal size, the same way every time."""
    shares: list[list[str]] = [[] for _ in range(count)]
    sizes = [0] * count
    for name in sorted(names, key=lambda name: (-len(sources[name]), name)):
        smallest = sizes.index(min(sizes))
        shares[smallest].append(name)
        sizes[smallest] += len(sources[name])
    return [share for share in shares if share]


def _compile(executable: Path, modules: list[tuple[str, bytes]]) -> list[bytes | None]:
    # Sets of strings among the constants are written in the order of their hashes: fix it, for equal output from
    # equal input.
    environment = {**clean_environment(), "PYTHONHASHSEED": "0"}
    command = [str(executable), "-s", "-S", "-P", "-B", str(compile_worker.__file__)]
    worker = subprocess.run(command, input=pickle.dumps(modules), capture_output=True, env=environment, cwd="/")
    if worker.returncode != 0:
        raise TemplateError(f"compiling modules failed: {worker.stderr.decode(errors='replace').strip()[-500:]}")
    codes: list[bytes | None] = pickle.loads(worker.stdout)
    return codes
