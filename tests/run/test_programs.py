"""Running a program: it is ``__main__`` of a real interpreter, and everything it says arrives exactly."""

# Programs for the guest are strings; a broken line would not make them clearer.
# ruff: noqa: E501

import time

import pytest

pytestmark = pytest.mark.kvm


def test_a_program_prints(run):
    result = run("print(1 + 1)")
    assert (result.stdout, result.stderr, result.exit_code, result.status) == (b"2\n", b"", 0, "ok")


def test_measured_times_add_up(run):
    result = run("import time; time.sleep(0.1)")
    assert 0.1 <= result.exec_seconds < 1
    assert 0 < result.fork_seconds < 0.5
    assert result.fork_seconds + result.exec_seconds <= result.total_seconds


def test_the_program_is_main_and_knows_its_file(run):
    result = run(
        "import sys\n"
        "print(__name__, __file__, __spec__, __package__, __doc__, sys.argv)\n"
        "print(sys.modules['__main__'].__dict__ is globals(), sorted(globals()))\n"
        "print(sys.path[0], __builtins__ is __import__('builtins'))"
    )
    assert result.stdout.decode().splitlines() == [
        "__main__ /home/user/main.py None None None ['/home/user/main.py']",
        "True ['__annotations__', '__builtins__', '__cached__', '__doc__', '__file__', '__loader__', '__name__', "
        "'__package__', '__spec__', 'sys']",
        "/home/user True",
    ]


def test_the_program_finds_its_own_source(run):
    result = run(
        "import inspect\ndef f():\n    return 'here'\nprint(inspect.getsource(f), open(__file__).read().count('f'))"
    )
    assert result.stdout == b"def f():\n    return 'here'\n 5\n"


def test_the_docstring_and_future_imports_are_the_programs_own(run):
    result = run(
        '"""Doc."""\nfrom __future__ import annotations\ndef f(x: nowhere): ...\nprint(__doc__, f.__annotations__)'
    )
    assert result.stdout == b"Doc. {'x': 'nowhere'}\n"


def test_classes_of_the_program_can_be_pickled(run):
    result = run(
        "import pickle, dataclasses\n"
        "@dataclasses.dataclass\nclass Point:\n    x: int\n"
        "print(pickle.loads(pickle.dumps(Point(3))))"
    )
    assert result.stdout == b"Point(x=3)\n"


def test_arguments_and_the_scripts_name_are_given(run):
    result = run("import sys; print(sys.argv, __file__)", argv=["-v", "", "a b", "ü\udcff"], name="script.py")
    assert result.stdout.decode("utf-8", "surrogateescape") == (
        "['/home/user/script.py', '-v', '', 'a b', 'ü\\udcff'] /home/user/script.py\n"
    )


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/passwd", "a\0b", "n" * 256])
def test_a_name_that_is_no_file_name_is_refused(run, name):
    with pytest.raises(ValueError, match="name"):
        run("print(1)", name=name)


def test_an_argument_with_a_nul_is_refused(run):
    with pytest.raises(ValueError, match="NUL"):
        run("print(1)", argv=["a\0b"])


def test_a_sandbox_runs_one_program(template):
    with template.fork() as sandbox:
        sandbox.run("print(1)")
        with pytest.raises(ValueError, match="one program"):
            sandbox.run("print(2)")


def test_standard_input_is_empty_unless_given(run):
    assert run("import sys; print(repr(sys.stdin.read()))").stdout == b"''\n"
    assert run("input()").stderr.endswith(b"EOFError: EOF when reading a line\n")


def test_standard_input_arrives_byte_for_byte(run):
    data = bytes(range(256)) * 1000
    result = run(
        "import sys; d = sys.stdin.buffer.read(); print(len(d), sum(d), d[:256] == bytes(range(256)))", stdin=data
    )
    assert result.stdout == f"{len(data)} {sum(data)} True\n".encode()


def test_lines_are_read_by_input(run):
    assert run("print(input() + input())", stdin=b"one\ntwo\n").stdout == b"onetwo\n"


def test_files_are_there_and_may_be_changed(run):
    files = {"data/a.txt": b"A\xff", "b.bin": bytes(70_000), "pkg/__init__.py": b"x = 5"}
    result = run(
        "import pkg\n"
        "print(open('data/a.txt', 'rb').read(), len(open('b.bin', 'rb').read()), pkg.x)\n"
        "open('data/a.txt', 'w').write('new')\n"
        "print(open('data/a.txt').read())",
        files=files,
    )
    assert result.stdout == b"b'A\\xff' 70000 5\nnew\n"
    assert files["data/a.txt"] == b"A\xff"


@pytest.mark.parametrize("path", ["../../etc/evil", "/etc/evil", "a/../../../x", "a\0b", ""])
def test_a_file_outside_the_working_directory_is_refused(run, path):
    with pytest.raises(ValueError, match=r".+"):
        run("print(1)", files={path: b"x"})


def test_the_environment_is_the_templates_and_nothing_else(run):
    result = run("import os; print(sorted(os.environ))")
    own = {"HOME", "LANG", "LOGNAME", "USER", "PATH", "LC_CTYPE"}
    tuning = ("OMP_", "OPENBLAS_", "MALLOC_", "PYTHON")
    assert [name for name in eval(result.stdout) if name not in own and not name.startswith(tuning)] == []


def test_source_may_be_bytes_with_a_declared_encoding(run):
    assert run("# coding: latin-1\nprint('ä')".encode("latin-1")).stdout == "ä\n".encode()


def test_every_byte_arrives_on_both_streams(run):
    result = run("import os\nd = bytes(range(256))\nfor i in range(100):\n    os.write(1, d)\n    os.write(2, d[::-1])")
    assert result.stdout == bytes(range(256)) * 100
    assert result.stderr == bytes(range(256))[::-1] * 100


def test_output_that_was_not_flushed_arrives(run):
    result = run("import sys\nsys.stdout.write('out')\nsys.stderr.write('err')")
    assert (result.stdout, result.stderr) == (b"out", b"err")


def test_a_character_written_in_pieces_is_whole(run):
    result = run("import os, time\nfor b in '€'.encode():\n    os.write(1, bytes([b]))\n    time.sleep(0.02)")
    assert result.stdout == "€".encode()


def test_output_is_in_the_order_in_which_it_was_written(run):
    result = run("import sys, os\nfor i in range(500):\n    print(i)\nos.write(1, b'end')")
    assert result.stdout == "".join(f"{i}\n" for i in range(500)).encode() + b"end"


def test_output_goes_to_sinks_as_it_comes(template):
    seen = []
    with template.fork(sinks=(lambda data: seen.append((1, data)), lambda data: seen.append((2, data)))) as sandbox:
        sandbox.run("import os\nos.write(1, b'a')\nos.write(2, b'b')\nos.write(1, b'c')")
    assert seen == [(1, b"a"), (2, b"b"), (1, b"c")]


def test_exit_handlers_run_in_reverse_after_the_program(run):
    result = run("import atexit\natexit.register(print, 'first')\natexit.register(print, 'second')\nprint('body')")
    assert result.stdout == b"body\nsecond\nfirst\n"


def test_exit_handlers_run_after_an_exception_and_one_that_raises_does_not_stop_the_others(run):
    result = run("import atexit\natexit.register(print, 'done')\natexit.register(lambda: 1 / 0)\nraise KeyError('k')")
    assert result.stdout == b"done\n"
    assert result.stderr.count(b"Traceback") == 2 and b"ZeroDivisionError" in result.stderr
    assert result.exit_code == 1


def test_objects_are_finalized_at_the_end(run):
    result = run("class A:\n    def __del__(self): print('gone', self.n)\na = A(); a.n = 1\n_b = A(); _b.n = 2")
    assert result.stdout == b"gone 2\ngone 1\n"


def test_a_weakref_finalizer_runs_at_the_end(run):
    assert run("import weakref\nclass A: pass\na = A()\nweakref.finalize(a, print, 'final')").stdout == b"final\n"


def test_a_generator_left_open_is_closed_at_the_end(run):
    code = "def g():\n    try:\n        yield\n    finally:\n        print('closed')\nx = g(); next(x)"
    assert run(code).stdout == b"closed\n"


def test_the_wall_clock_is_right(run):
    result = run("import time; print(time.time())")
    assert abs(float(result.stdout) - time.time()) < 1


def test_no_clock_steps_back(run):
    result = run(
        "import time\n"
        "clocks = (time.monotonic_ns, time.perf_counter_ns, time.time_ns, time.process_time_ns,\n"
        "          lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME))\n"
        "for clock in clocks:\n"
        "    last = clock()\n"
        "    for _ in range(20_000 if clock is not time.process_time_ns else 500):\n"
        "        now = clock()\n"
        "        assert now >= last, (clock, last, now)\n"
        "        last = now\n"
        "print('forward')"
    )
    assert result.stdout == b"forward\n", result.stderr


def test_sleeping_takes_the_time_it_should(run):
    result = run("import time\nt = time.monotonic()\ntime.sleep(0.25)\nprint(time.monotonic() - t)")
    assert 0.25 <= float(result.stdout) < 1


def test_the_clocks_of_the_library_agree(run):
    result = run(
        "import time, datetime\n"
        "a = [time.time(), time.clock_gettime(time.CLOCK_REALTIME), datetime.datetime.now().timestamp(),\n"
        "     datetime.datetime.now(datetime.timezone.utc).timestamp()]\n"
        "print(max(a) - min(a) < 0.5, time.tzname[0], time.strftime('%Y') == str(datetime.date.today().year))"
    )
    assert result.stdout == b"True UTC True\n"


def test_numpy_computes(run):
    result = run(
        "import numpy as np\n"
        "a = np.arange(12.).reshape(3, 4)\n"
        "print((a @ a.T).tolist(), np.linalg.inv(np.eye(3) * 2).trace(), np.fft.fft([1, 0, 0, 0]).real.tolist())"
    )
    assert (
        result.stdout == b"[[14.0, 38.0, 62.0], [38.0, 126.0, 214.0], [62.0, 214.0, 366.0]] 1.5 [1.0, 1.0, 1.0, 1.0]\n"
    )


def test_pandas_computes(run):
    result = run(
        "import pandas as pd\n"
        "frame = pd.DataFrame({'k': list('aab'), 'v': [1, 2, 3]})\n"
        "print(frame.groupby('k').v.sum().to_dict(), pd.Timestamp('2024-02-29').day_name())"
    )
    assert result.stdout == b"{'a': 3, 'b': 3} Thursday\n"


def test_the_c_library_knows_the_worlds_time_zones(run):
    result = run(
        "import os, time\nos.environ['TZ'] = 'Asia/Kolkata'\ntime.tzset()\nprint(time.tzname[0], time.timezone)"
    )
    assert result.stdout == b"IST -19800\n"


def test_libraries_are_found_by_their_names(run):
    result = run(
        "from ctypes.util import find_library\nprint(find_library('c'), find_library('m'), find_library('none'))"
    )
    assert result.stdout == b"libc.so.6 libm.so.6 None\n"


def test_two_runs_share_nothing(run):
    run(
        "import sys, os, builtins\nbuiltins.mark = 1\nsys.path.append('/mark')\nos.environ['MARK'] = '1'\nopen('mark', 'w').close()"
    )
    result = run(
        "import sys, os, builtins\nprint(hasattr(builtins, 'mark'), '/mark' in sys.path, 'MARK' in os.environ, os.listdir())"
    )
    assert result.stdout == b"False False False ['main.py']\n"
