"""``/dev``, ``/proc``, ``/sys`` and the standard streams of a guest."""

import os
import re
from errno import EACCES, EBADF, EINVAL, EISDIR, ENOENT, ENOMEM, ENOTTY, ENXIO, EPERM, ESPIPE

import pytest

from tests.linux.vfs_guest import Guest

O_WRONLY, O_RDWR, O_CREAT, O_DIRECTORY = 1, 2, 0o100, 0o200000


@pytest.fixture
def guest() -> Guest:
    return Guest(stdin=b"typed by nobody\n")


def readlink(guest: Guest, path: bytes) -> bytes:
    count = guest.call("readlink", path, guest.buffer, 4096)
    assert count >= 0, count
    return bytes(guest.peek(guest.buffer, count))


# ---------------------------------------------------------------------------------------------------------- streams


def test_output_is_collected_by_stream(guest: Guest) -> None:
    guest.write(1, b"out")
    guest.write(guest.call("dup", 2), b"err")
    guest.write(guest.open(b"/dev/stdout", O_WRONLY), bytes(range(256)))
    guest.write(guest.open(b"/proc/self/fd/2", O_WRONLY), b"or")
    assert guest.kernel.stdout.data == b"out" + bytes(range(256))
    assert guest.kernel.stderr.data == b"error"


def test_standard_input_gives_its_bytes_and_then_the_end(guest: Guest) -> None:
    assert guest.read(0, 5) == b"typed"
    assert guest.read(guest.open(b"/dev/stdin"), 4) == b" by "
    assert guest.read(0) == b"nobody\n"
    assert guest.read(0) == b""


def test_streams_look_like_pipes(guest: Guest) -> None:
    for fd in (0, 1, 2):
        assert guest.call("lseek", fd, 0, 1) == -ESPIPE
        assert guest.call("ioctl", fd, 0x5401, guest.buffer) == -ENOTTY
        assert guest.call("fstat", fd, guest.buffer) == 0
        assert int.from_bytes(guest.peek(guest.buffer + 24, 4), "little") == 0o010600
        assert re.fullmatch(rb"pipe:\[\d+\]", readlink(guest, b"/proc/self/fd/%d" % fd))
    assert guest.read(1) == -EBADF
    assert guest.write(0, b"x") == -EBADF
    assert [guest.call("fcntl", fd, 3, 0) for fd in (0, 1, 2)] == [0, 1, 1]


def test_a_long_write_arrives_whole(guest: Guest) -> None:
    data = os.urandom(1 << 20)
    assert guest.write(1, data) == len(data)
    assert guest.kernel.stdout.data == data


def test_a_write_that_faults_half_way_keeps_its_first_half(guest: Guest) -> None:
    guest.mem.write(guest.nowhere - 4, b"half")
    assert guest.call("write", 1, guest.nowhere - 4, 100) == 4
    assert guest.kernel.stdout.data == b"half"


# -------------------------------------------------------------------------------------------------------------- dev


def test_a_process_has_no_terminal_at_first(guest: Guest) -> None:
    assert guest.open(b"/dev/tty", O_RDWR) == -ENXIO
    assert guest.names(b"/dev/pts") == [b".", b".."]
    assert guest.open(b"/dev/ptmx", O_RDWR) >= 0
    assert guest.names(b"/dev/pts") == [b".", b"..", b"0"]
    assert guest.open(b"/dev/pts/00") == guest.open(b"/dev/pts/1") == -ENOENT


def test_devices_have_their_numbers(guest: Guest) -> None:
    numbers = {name: guest.stat(b"/dev/" + name)[6] for name in (b"null", b"zero", b"full", b"random", b"urandom")}  # type: ignore[index]
    assert numbers == {b"null": 0x103, b"zero": 0x105, b"full": 0x107, b"random": 0x108, b"urandom": 0x109}


def test_dev_and_sys_cannot_be_changed(guest: Guest) -> None:
    for folder in (b"/dev", b"/sys", b"/proc", b"/proc/self"):
        assert guest.open(folder + b"/new", O_CREAT | O_WRONLY) in (-EACCES, -ENOENT)
        assert guest.call("mkdir", folder + b"/new", 0o755) in (-EACCES, -EPERM, -ENOENT)
    assert guest.call("unlink", b"/dev/null") == -EACCES
    assert guest.call("chmod", b"/dev/null", 0o777) == -EPERM


def test_shm_is_for_everybody(guest: Guest) -> None:
    guest.spill(b"/dev/shm/sem.x", b"s")
    assert guest.stat(b"/dev/shm")[3] == 0o041777  # type: ignore[index]
    assert guest.slurp(b"/dev/shm/sem.x") == b"s"


# ------------------------------------------------------------------------------------------------------------- proc


def test_every_file_of_proc_and_sys_can_be_read(guest: Guest) -> None:
    read = 0
    todo = [b"/proc", b"/sys"]
    while todo:
        folder = todo.pop()
        for name in guest.names(folder):
            path = folder + b"/" + name
            if name in (b".", b"..") or path.count(b"/300") > 1 or b"/task/" in path:
                continue
            attributes = guest.stat(path)
            if isinstance(attributes, int):
                assert (attributes, path.rpartition(b"/")[0][-3:]) in ((-ENOENT, b"/fd"), (-ENOENT, b"nfo"))
                continue  # the descriptor by which the directory was read
            mode = attributes[3] >> 12
            if mode == 4:
                todo.append(path)
            elif mode == 8:
                text = guest.slurp(path)
                assert os.uname().release.encode() not in text
                read += 1
            else:
                readlink(guest, path)
    assert read > 80


def test_stat_has_52_fields_with_a_name_in_parentheses(guest: Guest) -> None:
    guest.comm = b"a) b ("
    text = guest.slurp(b"/proc/self/stat")
    assert text.startswith(b"300 (a) b () R 1 ")
    assert len(text[text.rindex(b")") + 2 :].split()) == 50
    assert text.endswith(b"\n")


def test_maps_reads_as_the_c_library_reads_it(guest: Guest) -> None:
    lines = guest.slurp(b"/proc/self/maps").splitlines()
    pattern = rb"[0-9a-f]{8,}-[0-9a-f]{8,} [r-][w-][x-][ps] [0-9a-f]{8} [0-9a-f]{2}:[0-9a-f]{2} \d+ +(\S+)"
    assert [re.fullmatch(pattern, line)[1] for line in lines] == [b"/bin/program", b"[stack]"]  # type: ignore[index]


def test_status_and_meminfo_tell_of_the_guest(guest: Guest) -> None:
    status = dict(line.split(b":\t") for line in guest.slurp(b"/proc/self/status").splitlines())
    assert (status[b"Name"], status[b"Pid"], status[b"Uid"]) == (b"program", b"300", b"1000\t1000\t1000\t1000")
    assert status[b"VmRSS"].endswith(b" kB")
    meminfo = dict(line.split(b":") for line in guest.slurp(b"/proc/meminfo").splitlines())
    assert int(meminfo[b"MemTotal"].split()[0]) == 256 << 10
    assert int(meminfo[b"MemAvailable"].split()[0]) == (256 - 8) << 10


def test_arguments_and_environment_are_read_from_the_memory_of_the_program(guest: Guest) -> None:
    assert guest.slurp(b"/proc/self/cmdline") == b""  # nobody has it any more
    guest.mm.users = 1
    assert guest.slurp(b"/proc/300/task/300/cmdline") == b"program\0one\0"
    assert guest.slurp(b"/proc/self/environ") == b"A=1\0"
    guest.mem.write(guest.mm.arguments[0], b"a title that is longer\0")
    assert guest.slurp(b"/proc/self/cmdline") == b"a title that is "
    guest.mm.arguments = (guest.nowhere, guest.nowhere + 8)
    assert guest.slurp(b"/proc/self/cmdline") == b""


def test_a_long_text_is_counted_while_its_file_is_open(guest: Guest) -> None:
    quota = guest.vfs.store.quota
    area = next(iter(guest.mm.maps()))
    guest.mm.maps = lambda: iter([area] * 1000)
    before = quota.bytes_used
    fd = guest.open(b"/proc/self/maps")
    used = quota.bytes_used - before
    assert used > 50_000
    assert guest.call("pread64", fd, guest.buffer, 10, 0) == 10
    assert quota.bytes_used - before == used
    guest.call("close", fd)
    assert quota.bytes_used == before
    quota.max_bytes = before + used - 1
    assert guest.call("open", b"/proc/self/maps", 0, 0) == -ENOMEM
    assert guest.open(b"/proc/self/stat") >= 0


def test_links_of_a_process(guest: Guest) -> None:
    guest.call("chdir", b"/home/user")
    assert readlink(guest, b"/proc/self") == b"300"
    assert readlink(guest, b"/proc/thread-self") == b"300/task/300"
    assert readlink(guest, b"/proc/self/exe") == b"/bin/program"
    assert readlink(guest, b"/proc/self/cwd") == b"/home/user"
    assert guest.slurp(b"/proc/self/exe")[:4] == b"\x7fELF"
    assert guest.slurp(b"/proc/self/root/etc/passwd").startswith(b"root:")
    assert guest.call("readlink", b"/proc/self/stat", guest.buffer, 10) == -EINVAL


def test_descriptors_are_listed(guest: Guest) -> None:
    fd = guest.open(b"/etc/passwd")
    assert guest.names(b"/proc/self/fd") == [b".", b"..", b"0", b"1", b"2", b"%d" % fd, b"%d" % (fd + 1)]
    assert readlink(guest, b"/dev/fd/%d" % fd) == b"/etc/passwd"
    assert guest.slurp(b"/proc/self/fdinfo/%d" % fd).startswith(b"pos:\t0\nflags:\t0100000\n")
    for odd in (b"007", b"-1", b"x", b"99999999999999999999"):
        assert guest.open(b"/proc/self/fd/" + odd, O_DIRECTORY) < 0


def test_comm_can_be_written(guest: Guest) -> None:
    fd = guest.open(b"/proc/self/comm", O_RDWR)
    guest.write(fd, b"a name that is far too long\n")
    assert guest.comm == b"a name that is "
    assert guest.slurp(b"/proc/self/comm") == b"a name that is \n"
    assert guest.open(b"/proc/self/stat", O_WRONLY) == -EACCES
    assert guest.write(guest.open(b"/proc/self/oom_score_adj", O_WRONLY), b"much") == -EINVAL


def test_reading_again_from_the_start_tells_the_present(guest: Guest) -> None:
    fd = guest.open(b"/proc/self/comm")
    assert guest.read(fd) == b"program\n"
    guest.comm = b"other"
    guest.call("lseek", fd, 0, 0)
    assert guest.read(fd) == b"other\n"


def test_random_identifiers(guest: Guest) -> None:
    uuid = b"/proc/sys/kernel/random/uuid"
    boot_id = b"/proc/sys/kernel/random/boot_id"
    assert re.fullmatch(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\n", guest.slurp(uuid))
    assert guest.slurp(uuid) != guest.slurp(uuid)
    assert guest.slurp(boot_id) == guest.slurp(boot_id) != Guest().slurp(boot_id)


def test_directories_of_proc_are_no_files(guest: Guest) -> None:
    assert guest.read(guest.open(b"/proc/self")) == -EISDIR
    assert guest.open(b"/proc/301") == -ENOENT
    assert guest.open(b"/proc/0300") == -ENOENT
    assert guest.open(b"/proc/self/no_such") == -ENOENT


def test_mounts_agree(guest: Guest) -> None:
    points = [line.split()[1] for line in guest.slurp(b"/proc/mounts").splitlines()]
    assert points == [line.split()[4] for line in guest.slurp(b"/proc/self/mountinfo").splitlines()]
    assert points == [b"/", b"/dev", b"/proc", b"/sys", b"/dev/shm", b"/dev/pts"]


def test_one_processor_everywhere(guest: Guest) -> None:
    assert guest.slurp(b"/sys/devices/system/cpu/online") == b"0\n"
    assert guest.slurp(b"/proc/cpuinfo").count(b"processor\t:") == 1
    assert len(re.findall(rb"^cpu\d", guest.slurp(b"/proc/stat"), re.M)) == 1


def test_cgroup_limits_are_the_guests(guest: Guest) -> None:
    assert guest.slurp(b"/proc/self/cgroup") == b"0::/\n"
    assert int(guest.slurp(b"/sys/fs/cgroup/memory.max")) == 256 << 20
