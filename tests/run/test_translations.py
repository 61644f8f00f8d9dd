"""The processor forgets a translation that is taken away, whichever kind of paging keeps it.

Each program touches its pages first, so that their translations are in the processor when the change comes.
"""

import pytest

pytestmark = pytest.mark.kvm

_PRELUDE = """\
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
for name in ("munmap", "mprotect", "madvise"):
    getattr(libc, name).argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int][: 2 if name == "munmap" else 3]
NONE, READ, WRITE, PAGES, PAGE = 0, 1, 3, 40, 4096

def mapped(at=None, prot=WRITE, shared=False):
    place = libc.mmap(at, PAGES * PAGE, prot, 0x20 | (0x10 if at else 0) | (1 if shared else 2), -1, 0)
    assert place not in (None, 2**64 - 1)
    return place

def fill(place, byte):
    ctypes.memset(place, byte, PAGES * PAGE)

def seen(place):
    return {ctypes.string_at(place + n * PAGE, PAGE) for n in range(PAGES)}

def in_child(work):
    child = os.fork()
    if child == 0:
        try:
            os._exit(work() or 0)
        finally:
            os._exit(99)
    return os.waitpid(child, 0)[1]
"""


def check(run, code):
    result = run(_PRELUDE + code, timeout=60)
    assert (result.stdout, result.status) == (b"ok\n", "ok"), result


def test_memory_mapped_again_at_the_same_place_is_new(run):
    check(
        run,
        """
place = mapped()
for turn in range(1, 30):
    fill(place, turn)
    assert libc.munmap(place, PAGES * PAGE) == 0
    assert mapped(place) == place
    assert seen(place) == {bytes(PAGE)}, turn
print("ok")
""",
    )


def test_discarded_pages_read_as_zeros_at_once(run):
    check(
        run,
        """
place = mapped()
for turn in range(1, 30):
    fill(place, turn)
    assert libc.madvise(place, PAGES * PAGE, 4) == 0
    assert seen(place) == {bytes(PAGE)}, turn
print("ok")
""",
    )


@pytest.mark.parametrize("prot", ["NONE", "READ", "unmapped"])
def test_what_may_no_longer_be_written_is_a_segmentation_fault(run, prot):
    check(
        run,
        f"""
def work():
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    place = mapped()
    fill(place, 1)
    if {prot!r} == "unmapped":
        libc.munmap(place, PAGES * PAGE)
    else:
        libc.mprotect(place, PAGES * PAGE, {prot if prot != "unmapped" else 0})
    ctypes.memset(place + 7 * PAGE, 2, 1)
for turn in range(5):
    assert os.waitstatus_to_exitcode(in_child(work)) == -signal.SIGSEGV
print("ok")
""",
    )


def test_rights_given_back_hold_at_once(run):
    check(
        run,
        """
place = mapped()
for turn in range(1, 30):
    fill(place, turn)
    libc.mprotect(place, PAGES * PAGE, NONE)
    libc.mprotect(place, PAGES * PAGE, READ)
    assert seen(place) == {bytes((turn,)) * PAGE}
    libc.mprotect(place, PAGES * PAGE, WRITE)
print("ok")
""",
    )


def test_parent_and_child_write_to_pages_of_their_own(run):
    check(
        run,
        """
place = mapped()
for turn in range(1, 8):
    fill(place, turn)
    def work():
        assert seen(place) == {bytes((turn,)) * PAGE}
        fill(place, 100)
        assert seen(place) == {bytes((100,)) * PAGE}
    assert in_child(work) == 0, turn
    assert seen(place) == {bytes((turn,)) * PAGE}
    fill(place, 200)
print("ok")
""",
    )


def test_what_the_parent_writes_after_a_fork_is_not_the_childs(run):
    check(
        run,
        """
place, shared = mapped(), mapped(shared=True)
for turn in range(1, 8):
    fill(place, turn)
    fill(shared, turn)
    go = os.pipe()
    def work():
        os.read(go[0], 1)
        assert seen(place) == {bytes((turn,)) * PAGE}
        assert seen(shared) == {bytes((150,)) * PAGE}
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(99)
    fill(place, 150)
    fill(shared, 150)
    os.write(go[1], b"x")
    assert os.waitpid(child, 0)[1] == 0, turn
print("ok")
""",
    )


def test_many_executions_in_a_row_end_as_they_should(run):
    check(
        run,
        """
import subprocess
for turn in range(20):
    assert subprocess.run(["/bin/sh", "-c", f"exit {turn}"]).returncode == turn
print("ok")
""",
    )
