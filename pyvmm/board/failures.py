"""What a reader is told of an exit after which a guest cannot go on."""

from pyvmm.host import Host
from pyvmm.kvm.abi.exits import (
    KVM_EXIT_FAIL_ENTRY,
    KVM_EXIT_INTERNAL_ERROR,
    KVM_EXIT_SHUTDOWN,
    KVM_INTERNAL_ERROR_EMULATION,
    KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES,
    exit_reason_name,
)
from pyvmm.kvm.vcpu import Vcpu

_SOFTWARE = (
    "; this host has software KVM (kvm_pvm), which interprets ring 0 and does not know every instruction: "
    "try a host with hardware KVM, or `pyvmm lab`"
)


def explain(reason: int, vcpu: Vcpu, host: Host) -> str:
    """One sentence for the exit ``reason`` (KVM_EXIT_*), with the place where the guest was."""
    place = f"at {vcpu.get_regs().rip:#x}"
    if reason == KVM_EXIT_SHUTDOWN:
        return (
            f"triple fault {place}: a fault in the handling of a double fault; the usual cause is an interrupt "
            "descriptor table that is not there"
        )
    if reason == KVM_EXIT_FAIL_ENTRY:
        why = vcpu.kvm_run.fail_entry.hardware_entry_failure_reason
        return f"the processor refuses the guest's state {place} (hardware entry failure {why:#x})"
    if reason == KVM_EXIT_INTERNAL_ERROR:
        return _explain_internal_error(vcpu, host, place)
    return f"{exit_reason_name(reason)} {place}, which no guest here should cause"


def _explain_internal_error(vcpu: Vcpu, host: Host, place: str) -> str:
    internal = vcpu.kvm_run.internal
    if internal.suberror != KVM_INTERNAL_ERROR_EMULATION:
        return f"KVM failed internally {place} (suberror {internal.suberror})"
    failure = vcpu.kvm_run.emulation_failure
    text = f"KVM cannot execute the instruction {place}"
    # ndata counts words; the bytes are there only if it covers them.
    if failure.ndata >= 3 and failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES:
        size = min(failure.insn_size, len(failure.insn_bytes))
        text += f" (bytes {bytes(failure.insn_bytes[:size]).hex(' ')})"
    return text + (_SOFTWARE if host.is_software else "")
