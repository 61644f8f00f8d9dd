"""Running another program: execve(2), execveat(2)."""

from errno import E2BIG, EACCES, EINVAL, ELOOP, ENAMETOOLONG, ENOEXEC
from typing import TYPE_CHECKING

from pyvmm.linux import elf, exec
from pyvmm.linux.abi.fcntl import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, PATH_MAX
from pyvmm.linux.ending import end_thread, leave_memory
from pyvmm.linux.errors import GuestError, RegistersSet
from pyvmm.linux.layout import STACK_SIZE
from pyvmm.linux.mm import AddressSpace
from pyvmm.linux.stub import FIXED_RFLAGS
from pyvmm.linux.table import Fd, Flags, Path, Pointer, syscall
from pyvmm.linux.task import COMM_LENGTH
from pyvmm.linux.usermem import UserMemory
from pyvmm.linux.vfs.inode import MAY_EXEC
from pyvmm.linux.vfs.namei import lookup

if TYPE_CHECKING:
    from pyvmm.linux.task import Task
    from pyvmm.linux.vfs.inode import Inode

#: ``MAX_ARG_STRINGS`` is more than fits; what fits is a quarter of the stack.
_STRINGS_MAX = STACK_SIZE // 4
_STRING_MAX = 32 * 4096
#: ``BINPRM_BUF_SIZE``, and how many interpreters may follow each other.
_HEAD_SIZE = 256
_SCRIPT_DEPTH = 5


@syscall
def execve(task: "Task", path: Path, argv: Pointer, envp: Pointer) -> int:
    """execve(2)."""
    name = task.mem.read_cstring(path, PATH_MAX)
    return _execute(task, name, lookup(task, AT_FDCWD, name), argv, envp)


@syscall
def execveat(task: "Task", dirfd: Fd, path: Path, argv: Pointer, envp: Pointer, flags: Flags) -> int:
    """execveat(2)."""
    if flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW):
        raise GuestError(EINVAL)
    name = task.mem.read_cstring(path, PATH_MAX)
    if not name and flags & AT_EMPTY_PATH:
        file = task.files.get_raw(dirfd)
        return _execute(task, b"/dev/fd/%d" % dirfd, file.inode, argv, envp)
    inode = lookup(task, dirfd, name, follow=not flags & AT_SYMLINK_NOFOLLOW)
    if inode.is_symlink:
        raise GuestError(ELOOP)
    shown = name if dirfd == AT_FDCWD or name.startswith(b"/") else b"/dev/fd/%d/%s" % (dirfd, name)
    return _execute(task, shown, inode, argv, envp)


def _execute(task: "Task", path: bytes, inode: "Inode", argv: int, envp: int) -> int:
    arguments = _strings(task, argv)
    environment = _strings(task, envp)
    shown = path
    for _ in range(_SCRIPT_DEPTH):
        _check(task, inode)
        head = inode.read_at(0, _HEAD_SIZE)
        if not head.startswith(b"#!"):
            break
        interpreter, option = _script(head)
        arguments = [interpreter, *option, shown, *arguments[1:]]
        shown = interpreter
        inode = lookup(task, AT_FDCWD, interpreter)
    else:
        raise GuestError(ELOOP)
    real_path = inode.path() if not shown.startswith(b"/") else shown
    program = elf.parse(inode.read_at)
    loader = task.kernel.vfs.find_executable(task, program.interpreter) if program.interpreter else None
    if not arguments:
        arguments = [b""]
    become(task, exec.Program(real_path, inode, loader, program, arguments, environment), path)
    raise RegistersSet


def _check(task: "Task", inode: "Inode") -> None:
    if not inode.is_regular:
        raise GuestError(EACCES)
    inode.check(task.creds, MAY_EXEC)


def _script(head: bytes) -> tuple[bytes, list[bytes]]:
    """The interpreter of a script and its one argument (``load_script()``)."""
    line, end, _ = head[2:].partition(b"\n")
    line = line.strip(b" \t")
    if not line or (not end and len(head) == _HEAD_SIZE and b" " not in line and b"\t" not in line):
        raise GuestError(ENOEXEC)
    words = line.replace(b"\t", b" ").split(b" ", 1)
    return words[0], [words[1].strip()] if len(words) > 1 and words[1].strip() else []


def _strings(task: "Task", vector: int) -> list[bytes]:
    """The strings of an argument vector, which end with a null pointer; E2BIG, EFAULT."""
    strings: list[bytes] = []
    total = 0
    while vector:
        pointer = task.mem.read_u64(vector)
        if not pointer:
            break
        try:
            string = task.mem.read_cstring(pointer, _STRING_MAX)
        except GuestError as error:
            raise GuestError(E2BIG if error.errno == ENAMETOOLONG else error.errno) from None
        strings.append(string)
        total += len(string) + 9
        if total > _STRINGS_MAX:
            raise GuestError(E2BIG)
        vector += 8
    return strings


def become(task: "Task", program: exec.Program, name: bytes) -> None:
    """Let ``task`` run another program from its beginning.

    :raises GuestError: it cannot be loaded; nothing has changed.
    """
    kernel, process, old = task.kernel, task.process, task.mm
    mm = AddressSpace.like(old)
    mem = UserMemory(mm, kernel.memory.view, kernel.memory.words)
    creds = task.creds
    identity = exec.Identity(
        creds.uid, creds.euid, creds.gid, creds.egid, kernel.hwcap, kernel.minsigstksz, kernel.random(16)
    )
    try:
        entry, stack = exec.load(mm, mem, program, identity)
    except BaseException:
        mm.close()
        raise
    for other in list(process.threads.values()):
        if other is not task:
            end_thread(other)
    leave_memory(task)
    mm.users = 1
    task.mm, task.mem = mm, mem
    if task.tid != process.pid:
        kernel.renumber(task, process.pid)
    task.files = task.files.unshared()
    task.files.executed()
    task.signals.reset_for_exec()
    process.signals = task.signals.shared
    if process.timers is not None:
        process.timers.forget_posix()
    process.executed = True
    process.dumpable = True
    process.exe_path = program.inode.path()
    task.comm = name.rsplit(b"/", 1)[-1][:COMM_LENGTH]
    kernel.registers.reset(task, entry, stack, FIXED_RFLAGS)
