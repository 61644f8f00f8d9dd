"""What the exceptions of pyvmm.kvm say."""

import ctypes
import errno
import os
import pickle
import resource
from collections.abc import Iterator

import pytest

from pyvmm.errors import HostError
from pyvmm.kvm import Kvm, KvmCpuid2, KvmError, KvmRegs, KvmSregs
from pyvmm.kvm.abi.exits import exit_reason_name


def test_a_missing_device_says_how_to_get_it() -> None:
    with pytest.raises(KvmError, match=r"/nonexistent.*ENOENT.*modprobe kvm_intel or kvm_amd") as caught:
        Kvm("/nonexistent")

    assert (caught.value.ioctl, caught.value.errno) == ("open", errno.ENOENT)


def test_a_file_that_is_not_kvm_is_called_so() -> None:
    descriptors = len(os.listdir("/proc/self/fd"))

    with pytest.raises(KvmError, match=r"^KVM_GET_API_VERSION failed: /dev/null: ENOTTY .*not the KVM device$"):
        Kvm("/dev/null")

    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize(
    ("ioctl", "number", "advice"),
    [
        ("open", errno.EACCES, "add the user to the group"),
        ("open", errno.EPERM, "device cgroup"),
        ("KVM_CREATE_VM", errno.ENOMEM, "no memory left for the VM"),
        ("KVM_CREATE_VM", errno.EMFILE, "ulimit -n"),
        ("KVM_CREATE_VM", errno.EBUSY, "another hypervisor"),
    ],
)
def test_the_text_names_request_errno_and_remedy(ioctl: str, number: int, advice: str) -> None:
    text = str(KvmError(ioctl, number))

    assert text.startswith(f"{ioctl} failed: {errno.errorcode[number]} ({os.strerror(number)}); ")
    assert advice in text


def test_a_kvm_error_is_a_host_error_and_an_os_error_and_survives_pickling() -> None:
    error = KvmError("KVM_SET_REGS", errno.EINVAL, "why")

    copy = pickle.loads(pickle.dumps(error))

    assert isinstance(error, HostError)
    assert isinstance(error, OSError)
    assert (copy.ioctl, copy.errno, copy.detail, str(copy)) == (error.ioctl, error.errno, error.detail, str(error))
    assert str(error) == "KVM_SET_REGS failed: why: EINVAL (Invalid argument)"


def test_another_version_of_the_interface_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyvmm.kvm.ioctls.KVM_GET_API_VERSION", lambda fd: 11)

    with pytest.raises(KvmError, match=r"^KVM_GET_API_VERSION: /dev/null speaks version 11 .* 12 is needed$"):
        Kvm("/dev/null")


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 2, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.kvm
def test_running_out_of_descriptors_says_so(kvm: Kvm, few_descriptors: None) -> None:
    vms = []

    with pytest.raises(KvmError, match=r"KVM_CREATE_VM failed: EMFILE .* ulimit -n"):
        for _ in range(10):
            vms.append(kvm.create_vm())

    for vm in vms:
        vm.close()


@pytest.mark.kvm
def test_a_wrong_structure_is_refused_before_the_kernel_sees_it(kvm: Kvm) -> None:
    refused = pytest.raises(TypeError, match="KVM_SET_SREGS takes a KvmSregs, not a KvmRegs")
    with kvm.create_vm() as vm, vm.create_vcpu() as vcpu, refused:
        vcpu.set_sregs(KvmRegs())  # type: ignore[arg-type]


@pytest.mark.kvm
def test_a_count_that_promises_more_entries_than_there_are_is_refused(kvm: Kvm) -> None:
    refused = pytest.raises(ValueError, match=r"KvmCpuid2.nent is 3, but it has room for 0")
    with kvm.create_vm() as vm, vm.create_vcpu() as vcpu, refused:
        vcpu.set_cpuid2(KvmCpuid2(nent=3))


@pytest.mark.kvm
def test_a_region_that_is_not_page_aligned_is_explained(kvm: Kvm) -> None:
    with kvm.create_vm() as vm, pytest.raises(KvmError, match=r"EINVAL .* multiples of the page size"):
        vm.set_user_memory_region(0, 0, 100, 0x10000)


def test_a_misspelt_field_is_an_error() -> None:
    with pytest.raises(AttributeError):
        KvmRegs().rpi = 1


def test_structures_print_decoded() -> None:
    sregs = KvmSregs()
    sregs.cs.base = 0xFFFF0000

    assert "rip=0xfff0, rflags=2)" in repr(KvmRegs(rip=0xFFF0, rflags=2))
    assert repr(sregs).startswith("KvmSregs(cs=KvmSegment(base=0xffff0000, limit=0,")
    assert "padding" not in repr(sregs)


def test_exit_reasons_have_names_even_if_they_are_new() -> None:
    assert [exit_reason_name(number) for number in (2, 17, 999)] == [
        "KVM_EXIT_IO",
        "KVM_EXIT_INTERNAL_ERROR",
        "KVM_EXIT_999",
    ]


def test_an_entry_of_a_flexible_structure_is_where_c_has_it() -> None:
    cpuid = KvmCpuid2.sized(3)

    assert ctypes.addressof(cpuid.entries[1]) - ctypes.addressof(cpuid) == 8 + 40
    assert (cpuid.nent, len(cpuid.entries), isinstance(cpuid, KvmCpuid2)) == (3, 3, True)
