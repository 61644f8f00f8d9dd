"""A warm interpreter that forks itself with os.fork(); ``rivals.py`` runs it in a process of its own.

``python warm.py SITE-PACKAGES MODULE...`` imports the modules as the template's agent does, prints a line, and then
answers requests, JSON objects one to a line:

``{"fork": CODE}``
    fork; the child runs the code as ``__main__`` with its output in a pipe: ``{"seconds": until all of its output was
    here and it was waited for, "forked": what os.fork() itself took, "output": ...}``

``{"idle": true}``
    fork a child that only waits, then kill it: ``{"forked": seconds of os.fork(), "destroyed": of kill and waitpid}``
"""

import gc
import importlib
import json
import os
import signal
import sys
import time
import types
from typing import NoReturn


def fork_and_run(code: str) -> dict[str, object]:
    """Fork, run ``code`` in the child, return its output."""
    begun = time.perf_counter()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        run(code, writing)
    forked = time.perf_counter()
    os.close(writing)
    output = b""
    while data := os.read(reading, 65536):
        output += data
    os.close(reading)
    os.waitpid(child, 0)
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "forked": forked - begun, "output": output.decode()}


def run(code: str, output: int) -> NoReturn:
    """In the child: what the template's agent does with a program; does not return."""
    os.dup2(output, 1)
    status = 1
    try:
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        # Through a pipe standard output is block-buffered, in a sandbox as well as here.
        exec(compile(code, "main.py", "exec", dont_inherit=True), module.__dict__)
        sys.stdout.flush()
        status = 0
    finally:
        os._exit(status)


def fork_idle() -> dict[str, object]:
    """Fork a child that waits to be killed."""
    begun = time.perf_counter()
    child = os.fork()
    if not child:
        signal.pause()
        os._exit(0)
    forked = time.perf_counter()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return {"forked": forked - begun, "destroyed": time.perf_counter() - forked}


def main() -> None:
    """Warm up, answer."""
    sys.path.append(sys.argv[1])
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.dup(1)
    os.write(answers, b'{"ready": true}\n')
    for line in requests:
        request = json.loads(line)
        answer = fork_and_run(request["fork"]) if "fork" in request else fork_idle()
        os.write(answers, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
