"""The face of pyvmm.kvm: its names, what it imports, and the ioctl as an object."""

import errno
import subprocess
import sys

import pytest

import pyvmm.kvm
from pyvmm.kvm import KvmError, ioctls

PUBLIC = """
Kvm Vm Vcpu KvmError KvmClockData KvmCpuid2 KvmCpuidEntry2 KvmDebugregs KvmDtable KvmFpu KvmGuestDebug KvmIrqRouting
KvmIrqRoutingEntry KvmIrqchip KvmLapicState KvmMsrEntry KvmMsrs KvmPitState2 KvmRegs KvmRun KvmSegment KvmSignalMask
KvmSregs KvmSregs2 KvmSyncRegs KvmTranslation KvmVcpuEvents KvmXcr KvmXcrs exit_reason_name signal_mask
"""


def test_the_public_names_are_these() -> None:
    assert sorted(pyvmm.kvm.__all__) == sorted(PUBLIC.split())
    assert all(hasattr(pyvmm.kvm, name) for name in pyvmm.kvm.__all__)


def test_nothing_but_the_standard_library_is_imported_and_never_fcntl() -> None:
    code = "import sys; before = set(sys.modules); import pyvmm.kvm; print(*set(sys.modules) - before)"

    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    ours = {name for name in modules if name.startswith("pyvmm.") and not name.startswith("pyvmm.kvm")}
    assert ours == {"pyvmm.errors"}
    assert "fcntl" not in modules
    assert {name.split(".")[0] for name in modules if "." in name} - {"pyvmm"} <= sys.stdlib_module_names


def test_an_ioctl_is_repeated_when_a_signal_interrupts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([(-1, errno.EINTR), (-1, errno.EINTR), (7, 0)])
    last = [0]

    def ioctl(fd: int, request: int, argument: object) -> int:
        result, last[0] = next(answers)
        return result

    monkeypatch.setattr(ioctls, "_ioctl", ioctl)
    monkeypatch.setattr(ioctls, "_get_errno", lambda: last[0])

    assert ioctls.KVM_CREATE_VM(3) == 7


def test_an_ioctl_that_fails_names_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ioctls, "_ioctl", lambda fd, request, argument: -1)
    monkeypatch.setattr(ioctls, "_get_errno", lambda: errno.ENXIO)

    with pytest.raises(KvmError, match=r"^KVM_CREATE_VM failed: ENXIO \(No such device or address\)$"):
        ioctls.KVM_CREATE_VM(3)


def test_requests_that_share_a_number_differ() -> None:
    pit2, events = ioctls.KVM_GET_PIT2, ioctls.KVM_GET_VCPU_EVENTS

    assert pit2.request & 0xFFFF == events.request & 0xFFFF
    assert (repr(pit2), repr(events)) == ("<KVM_GET_PIT2 0x8070ae9f>", "<KVM_GET_VCPU_EVENTS 0x8040ae9f>")
