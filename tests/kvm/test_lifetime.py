"""Descriptors and mappings: who owns them, when they go, what is left to someone who holds on."""

import ctypes
import gc
import itertools
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from pyvmm.kvm import Kvm, KvmError

pytestmark = pytest.mark.kvm


def resources() -> tuple[int, int]:
    """Open descriptors and mapped vCPUs of this process."""
    mapped = sum("kvm-vcpu" in line for line in Path("/proc/self/maps").read_text().splitlines())
    return len(os.listdir("/proc/self/fd")), mapped


@pytest.mark.parametrize("order", list(itertools.permutations(["kvm", "vm", "vcpu"])))
def test_closing_in_any_order_and_twice_leaves_nothing(order: tuple[str, ...]) -> None:
    before = resources()
    objects: dict[str, Any] = {"kvm": Kvm()}
    objects["vm"] = objects["kvm"].create_vm()
    objects["vcpu"] = objects["vm"].create_vcpu()
    opened = resources()

    for name in order * 2:
        objects[name].close()

    assert opened == (before[0] + 3, before[1] + 1)
    assert resources() == before
    assert all(thing.closed and thing.fileno() == -1 for thing in objects.values())


def test_a_vm_and_its_vcpu_work_after_dev_kvm_was_closed() -> None:
    kvm = Kvm()
    vm = kvm.create_vm()
    kvm.close()

    with vm, vm.create_vcpu() as vcpu:
        assert len(vcpu.get_xsave()) == vcpu.xsave_size


def test_a_vcpu_works_after_its_vm_was_closed(kvm: Kvm) -> None:
    vm = kvm.create_vm()
    with vm.create_vcpu() as vcpu:
        vm.close()

        assert vcpu.get_regs().rip == 0xFFF0


def test_a_thousand_vms_leave_nothing(kvm: Kvm) -> None:
    before = resources()

    for _ in range(1000):
        with kvm.create_vm() as vm, vm.create_vcpu():
            pass

    assert resources() == before


def test_the_descriptors_are_not_inherited_by_programs(kvm: Kvm) -> None:
    with kvm.create_vm() as vm, vm.create_vcpu() as vcpu:
        assert [os.get_inheritable(thing.fileno()) for thing in (kvm, vm, vcpu)] == [False] * 3


def test_a_vcpu_that_cannot_be_mapped_leaves_no_descriptor(kvm: Kvm) -> None:
    with kvm.create_vm() as vm:
        before = resources()
        vm._vcpu_mmap_size = 1 << 48

        with pytest.raises(KvmError, match="mmap failed: mapping the vCPU's kvm_run"):
            vm.create_vcpu()

        assert resources() == before


@pytest.mark.parametrize("name", ["run", "kvm_run", "run_page", "sync_regs"])
def test_a_closed_vcpu_says_that_it_is_closed(kvm: Kvm, name: str) -> None:
    with kvm.create_vm() as vm:
        vcpu = vm.create_vcpu(3)
        vcpu.close()

        with pytest.raises(KvmError, match="vCPU 3 is closed"):
            getattr(vcpu, name)


def test_ioctls_on_closed_objects_say_that_they_are_closed() -> None:
    kvm = Kvm()
    vm = kvm.create_vm()
    vcpu = vm.create_vcpu()
    run = vcpu.run
    for thing in (kvm, vm, vcpu):
        thing.close()

    for call in (kvm.create_vm, vm.create_vcpu, vcpu.get_regs, run):
        with pytest.raises(KvmError, match=r"^KVM_\w+ failed: EBADF \(.*\); the object was closed$"):
            call()


def test_an_attribute_that_never_was_is_an_attribute_error(kvm: Kvm) -> None:
    refused = pytest.raises(AttributeError, match="'Vcpu' object has no attribute 'kvmrun'")
    with kvm.create_vm() as vm, vm.create_vcpu() as vcpu, refused:
        _ = vcpu.kvmrun


def test_views_that_outlive_their_vcpu_read_zeros_and_keep_nothing_open(kvm: Kvm) -> None:
    before = resources()
    vm = kvm.create_vm()
    vcpu = vm.create_vcpu()
    run_page, part, structure, regs = vcpu.run_page, vcpu.run_page[8:16], vcpu.kvm_run, vcpu.sync_regs.regs
    structure.exit_reason = 5
    vm.close()

    vcpu.close()

    assert resources() == before
    assert (run_page[8], part[0], structure.exit_reason, regs.rip) == (0, 0, 0, 0)
    structure.exit_reason = 7
    assert part[0] == 7


def test_the_mapping_of_a_late_view_goes_with_the_view(kvm: Kvm) -> None:
    def mapped(address: int) -> bool:
        ranges = (line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines())
        return any(int(start, 16) <= address < int(end, 16) for start, end in ranges)

    with kvm.create_vm() as vm, vm.create_vcpu() as vcpu:
        view = vcpu.kvm_run
    address = ctypes.addressof(view)
    held = mapped(address)

    del view

    assert (held, mapped(address)) == (True, False)


def test_closing_from_many_threads_closes_once(kvm: Kvm) -> None:
    errors: list[BaseException] = []

    def close(barrier: threading.Barrier, thing: Any) -> None:
        barrier.wait()
        try:
            thing.close()
        except BaseException as error:
            errors.append(error)

    for _ in range(50):
        vm = kvm.create_vm()
        vcpu = vm.create_vcpu()
        barrier = threading.Barrier(4)
        threads = [threading.Thread(target=close, args=(barrier, thing)) for thing in (vm, vcpu) * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert errors == []


def test_an_object_that_is_forgotten_is_closed_with_a_warning(kvm: Kvm) -> None:
    before = resources()
    vm = kvm.create_vm()

    with pytest.warns(ResourceWarning, match=r"<Vm fd=\d+> was not closed"):
        del vm
        gc.collect()

    assert resources() == before


def test_repr_shows_identity_and_state(kvm: Kvm) -> None:
    with kvm.create_vm() as vm, vm.create_vcpu(2) as vcpu:
        opened = [repr(kvm), repr(vm), repr(vcpu)]

    assert opened[0] == f"<Kvm /dev/kvm fd={kvm.fileno()}>"
    assert opened[1].startswith("<Vm fd=")
    assert opened[2].startswith("<Vcpu 2 fd=")
    assert [repr(vm), repr(vcpu)] == ["<Vm closed>", "<Vcpu 2 closed>"]
