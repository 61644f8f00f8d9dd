"""The agent of a python template: warms the interpreter up, waits for a program, and becomes it.

It runs inside the sandbox, as the sandbox's own program. A template is frozen in the first ``read`` of the control
descriptor; every fork returns from that ``read`` with a program of its own. From then on this file does what
``python script.py`` does: it runs the source as ``__main__``, prints tracebacks, runs exit handlers, flushes, and ends
with the exit code. It holds no secret, and after the control descriptor is closed nothing here is worth more to the
program than its own memory.

The program, as bytes: a line with the lengths of head and source, the head (script path and arguments, each with a NUL
at its end), the source. The agent writes ``ready`` when every generator of random numbers has been seeded again, and
only then runs anything of it.

A page that a fork touches for the first time costs it some ten microseconds, so what can be made before the freeze is.
"""

import atexit
import gc
import importlib
import os
import signal
import sys
import threading
import types
from importlib.machinery import SourceFileLoader

CONTROL = 3
_FIRST_READ = 1 << 16
_INTERRUPTED = -2


def warm_up(modules):
    """Import ``modules``, run what every program runs, and keep it all out of the collector's way.

    Gives what :func:`refresh` and :func:`run` need: the seeders, and the module for the program.
    """
    for name in modules:
        importlib.import_module(name)
    main = new_main("/home/user/main.py")
    rehearse(main)
    main = new_main("/home/user/main.py")
    seeders = find_seeders()
    for seed in seeders:
        seed()
    gc.collect()
    # A collection never looks at the objects made so far again, so one in a fork does not touch (and copy) their pages.
    gc.freeze()
    return seeders, main


def rehearse(module):
    """Compile and run a little program, so that what this needs at its first time is there."""
    source = b"def f(x):\n    return [x, str(x), f'{x:.2f}']\nprint(f(1), file=sink)\n"
    with open(os.devnull, "w") as sink:
        module.sink = sink
        exec(compile(source, module.__file__, "exec", dont_inherit=True), module.__dict__)


def find_seeders():
    """Functions that seed again whatever generator the imported modules have made."""
    seeders = []
    if "random" in sys.modules:
        seeders.append(sys.modules["random"].seed)
    if "numpy.random" in sys.modules:
        seeders.append(numpy_seeder(sys.modules["numpy.random"]))
    return seeders


def numpy_seeder(numpy_random):
    """Seed NumPy's legacy global generator, as ``numpy.random.seed()`` does, by the words of its state.

    NumPy's own way runs through hundreds of pages. A Mersenne Twister's state is 624 random words (of the first, one
    bit counts), which NumPy lets one reach; where they do not lie as expected, its own way is taken.
    """
    try:
        import ctypes

        generator = numpy_random.mtrand._rand._bit_generator
        words = (ctypes.c_char * (4 * 624)).from_address(generator.ctypes.state_address)
        numpy_random.seed()
        if bytes(words) != generator.state["state"]["key"].tobytes():
            return numpy_random.seed
        view = memoryview(words).cast("B")
    except (AttributeError, KeyError, ImportError, ValueError):
        return numpy_random.seed

    def seed():
        view[:] = os.urandom(4 * 624)
        view[3] |= 0x80

    return seed


def receive():
    """Wait for the program: (path and arguments, source)."""
    data = os.read(CONTROL, _FIRST_READ)
    first, _, rest = data.partition(b"\n")
    head_length, source_length = map(int, first.split())
    missing = head_length + source_length - len(rest)
    if missing > 0:
        parts = [rest]
        while missing > 0:
            part = os.read(CONTROL, missing)
            parts.append(part)
            missing -= len(part)
        rest = b"".join(parts)
    head = [os.fsdecode(part) for part in rest[: head_length - 1].split(b"\0")]
    return head, rest[head_length:]


def refresh(seeders):
    """Make this process differ from every other fork of its template, and say so."""
    for seed in seeders:
        seed()
    modules = sys.modules
    uuid = modules.get("uuid")
    if uuid is not None:
        uuid._node = uuid._last_timestamp = None
    tempfile = modules.get("tempfile")
    if tempfile is not None:
        tempfile._name_sequence = None
    threading.main_thread()._set_native_id()
    os.write(CONTROL, b"ready")
    os.close(CONTROL)


def new_main(path):
    """A module to run a script in, as the interpreter makes it."""
    module = types.ModuleType("__main__")
    module.__dict__.update(
        __loader__=SourceFileLoader("__main__", path),
        __annotations__={},
        __builtins__=sys.modules["builtins"],
        __file__=path,
        __cached__=None,
    )
    return module


def run(source, path, module):
    """Run ``source`` as ``__main__``; the exit code."""
    if path != module.__file__:
        module.__file__ = module.__loader__.path = path
    sys.modules["__main__"] = module
    try:
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
        return 0
    except BaseException as caught:
        error = caught
    # Out of the handler: to an exception hook that fails itself, the first exception is no context.
    return exit_code(error) if isinstance(error, SystemExit) else report(error)


def exit_code(error):
    """What ``sys.exit(x)`` makes of x."""
    code = error.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF if -(1 << 63) <= code < 1 << 63 else 0xFF
    try:
        print(code, file=sys.stderr)
    except BaseException:
        pass
    return 1


def report(error):
    """Print an exception that nobody caught, without this file's own frames; the exit code."""
    trace = error.__traceback__.tb_next if error.__traceback__ is not None else None
    error = error.with_traceback(trace)
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    try:
        flush(sys.stdout)
        sys.excepthook(type(error), error, trace)
    except SystemExit as again:
        return exit_code(again)
    except BaseException as again:
        print("Error in sys.excepthook:", file=sys.stderr)
        trimmed = again.__traceback__.tb_next
        sys.__excepthook__(type(again), again.with_traceback(trimmed), trimmed)
        print("\nOriginal exception was:", file=sys.stderr)
        sys.__excepthook__(type(error), error, trace)
    return _INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


def flush(stream):
    """Flush a standard stream that may be anything; False if that failed."""
    try:
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()
    except BaseException:
        return False
    return True


def finish(code, threading_exits):
    """What the interpreter does at its end, but for tearing down every module: that would touch all memory.

    ``threading_exits`` is how many exit functions of threads the warm-up had registered; without new ones and without
    threads there is nothing to wait for.
    """
    if len(threading._active) > 1 or len(threading._threading_atexits) != threading_exits:
        try:
            threading._shutdown()
        except BaseException as error:
            sys.__excepthook__(type(error), error, error.__traceback__)
    atexit._run_exitfuncs()
    clean = flush(sys.stdout)
    flush(sys.stderr)
    main = sys.modules.get("__main__")
    if main is not None:
        clear(main.__dict__)
        gc.collect()
        clean &= flush(sys.stdout)
        flush(sys.stderr)
    if code == _INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code if clean or code else 120)


def clear(namespace):
    """Drop a module's names in the interpreter's order: ``_private`` first, then all but builtins.

    What has a ``__del__`` then gets it (``_PyModule_ClearDict`` in Objects/moduleobject.c).
    """
    for private in (True, False):
        for name in list(namespace):
            if name != "__builtins__" and (not private or (name[0] == "_" and name[1:2] != "_")):
                namespace[name] = None


def main():
    """Warm up, wait, run."""
    seeders, module = warm_up(sys.argv[1:])
    threading_exits = len(threading._threading_atexits)
    sys.stdout.reconfigure(line_buffering=True)
    head, source = receive()
    refresh(seeders)
    path = head[0]
    sys.argv = head
    sys.path[0] = os.path.dirname(path)
    finish(run(source, path, module), threading_exits)


if __name__ == "__main__":
    main()
