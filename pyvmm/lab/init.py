"""The first process of the emulated host: mounts, loads modules, runs one command, sends its results, powers off.

It is started by the kernel as ``/init``. What it is to do is in ``/lab/job.json``, a :class:`pyvmm.lab.machine.Job`; it
uses the standard library only. The results leave as a tar archive through the second serial port: ``status``, the
command's exit code in decimal, and what the command left in ``/lab/results``.
"""

import ctypes
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import traceback
import tty
from pathlib import Path
from typing import Any

JOB = "/lab/job.json"
RESULTS = "/lab/results"
_PORT = "/dev/ttyS1"

_MOUNTS = (
    ("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"), ("devpts", "/dev/pts"), ("tmpfs", "/dev/shm"),
    ("tmpfs", "/tmp"), ("tmpfs", "/run"),
)  # fmt: skip
# Linux include/uapi/linux/reboot.h, asm/unistd_64.h, linux/sockios.h, linux/if.h
_RB_POWER_OFF = 0x4321_FEDC
_NR_FINIT_MODULE = 313
_SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8914, 0x8916, 0x891C
_IFF_UP = 1
# linux/kvm.h
_KVM_CREATE_VM, _KVM_CREATE_VCPU = 0xAE01, 0xAE41
#: The guest's address in QEMU's user network.
_ADDRESS, _NETMASK = "10.0.2.15", "255.255.255.0"
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Never returns: the first process must not end."""
    try:
        _set_up_files()
        job = json.loads(Path(JOB).read_text())
        for module in job["modules"]:
            _load_module(module)
        _keep_a_vm()
        _bring_up("lo", "127.0.0.1", "255.0.0.0")
        if job["network"]:
            _bring_up("eth0", _ADDRESS, _NETMASK)
        _send(_run(job["command"], job["environment"]))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os.sync()
        _libc.reboot(_RB_POWER_OFF)
        signal.pause()


def _set_up_files() -> None:
    for kind, place in _MOUNTS:
        Path(place).mkdir(exist_ok=True)
        if _libc.mount(kind.encode(), place.encode(), kind.encode(), 0, None) != 0:
            # devtmpfs may have been mounted by the kernel itself.
            print(f"init: cannot mount {place}: {os.strerror(ctypes.get_errno())}", flush=True)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        if not os.path.lexists(f"/dev/{name}"):
            os.symlink(target, f"/dev/{name}")


def _load_module(path: str) -> None:
    with open(path, "rb") as file:
        if _libc.syscall(_NR_FINIT_MODULE, file.fileno(), b"", 0) != 0:
            raise OSError(ctypes.get_errno(), f"cannot load {path}: {os.strerror(ctypes.get_errno())}")


def _keep_a_vm() -> None:
    """Hold a VM with a processor for as long as the machine runs.

    Linux patches its own code (static keys) when the first VM or the first processor without a local APIC comes and
    when the last one goes, and QEMU's emulation of several processors sometimes goes on executing the breakpoint that
    stands there meanwhile, for ever.
    """
    kvm = os.open("/dev/kvm", os.O_RDWR)
    vm = _libc.ioctl(kvm, ctypes.c_ulong(_KVM_CREATE_VM), 0)
    if vm < 0 or _libc.ioctl(vm, ctypes.c_ulong(_KVM_CREATE_VCPU), 0) < 0:
        raise OSError(ctypes.get_errno(), f"cannot make a VM: {os.strerror(ctypes.get_errno())}")


def _bring_up(interface: str, address: str, netmask: str) -> None:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        for request, text in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, netmask)):
            name = struct.pack("<16sHH4s16x", interface.encode(), socket.AF_INET, 0, socket.inet_aton(text))
            _ioctl(door.fileno(), request, name)
        _ioctl(door.fileno(), _SIOCSIFFLAGS, struct.pack("<16sH22x", interface.encode(), _IFF_UP))


def _ioctl(descriptor: int, request: int, argument: bytes) -> None:
    if _libc.ioctl(descriptor, ctypes.c_ulong(request), argument) != 0:
        raise OSError(ctypes.get_errno(), f"ioctl {request:#x}: {os.strerror(ctypes.get_errno())}")


def _run(command: list[str], environment: dict[str, str]) -> int:
    """The command's exit code; orphans that it leaves behind are reaped on the way."""
    Path(RESULTS).mkdir(parents=True, exist_ok=True)
    child = subprocess.Popen(
        command,
        env=environment,
        cwd=environment["PWD"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    # Through a pipe: on a terminal, programs draw spinners and count columns.
    shown = threading.Thread(target=_show, args=(child.stdout,), daemon=True)
    shown.start()
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            shown.join(1.0)  # an orphan may keep the pipe open
            return os.waitstatus_to_exitcode(status)


def _show(stream: Any) -> None:
    while data := os.read(stream.fileno(), 4096):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def _send(status: int) -> None:
    with open(_PORT, "wb", buffering=0) as port:
        tty.setraw(port.fileno())
        out: Any = io.BufferedWriter(port)
        with tarfile.open(fileobj=out, mode="w|") as archive:
            data = str(status).encode()
            entry = tarfile.TarInfo("status")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
            archive.add(RESULTS, "results")
        out.flush()
        import termios

        termios.tcdrain(port.fileno())


if __name__ == "__main__":
    main()
