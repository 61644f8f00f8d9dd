"""The parts of the test suite that run in the lab: a name, what it shows, and pytest's arguments."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """``arguments`` select tests as on pytest's command line, from the checkout's folder."""

    shows: str
    arguments: tuple[str, ...]


_SAME = "tests/differential/test_same_as_the_host.py::test_a_program_does_the_same_as_on_the_host"
#: Programs whose output is compared with the emulated host's own Linux; those that fork very often take too long.
_PROGRAMS = (
    "die_by_signal", "floating_point", "futexes", "memory_file", "mmap", "numbers", "signals",
    "signals_between_processes", "socket_threads", "threads", "vmsplice",
)  # fmt: skip
_PROCESSOR = "tests/hostile/test_processor.py::"

PARTS = {
    "kvm": Part(
        "the door: every ioctl that pyvmm uses, the run loop, guest memory",
        (
            "tests/kvm/test_errors.py",
            "tests/kvm/test_lifetime.py",
            "tests/kvm/test_public.py",
            "tests/kvm/test_vcpu.py",
            "tests/kvm/test_vm.py",
            "tests/test_machine.py",
            "tests/test_memory.py",
            "--deselect=tests/kvm/test_lifetime.py::test_a_thousand_vms_leave_nothing",
        ),
    ),
    "process": Part(
        "process guests: a python template, forks with exec, memory taken away, the processor's privileges",
        (
            "tests/lab/test_forks.py",
            "tests/run/test_translations.py",
            "tests/run/test_exits.py::test_a_wild_pointer_is_a_segmentation_fault_and_faulthandler_says_where",
            f"{_PROCESSOR}test_a_forbidden_instruction_is_a_signal",
            # QEMU's emulated processor does not know INT1: outside of a VM it is SIGILL there as well.
            f"--deselect={_PROCESSOR}test_a_forbidden_instruction_is_a_signal[int1]",
            f"{_PROCESSOR}test_a_return_that_cannot_be_made_ends_the_process_and_pops_no_frame_of_its_own",
            f"{_PROCESSOR}test_interrupts_stay_enabled_and_iopl_zero_after_popf",
            f"{_PROCESSOR}test_jumping_into_the_monitors_pages_is_a_signal_or_a_system_call",
            f"{_PROCESSOR}test_no_page_of_the_monitor_can_be_written_and_few_read",
            f"{_PROCESSOR}test_extended_state_survives_system_calls_and_faults",
        ),
    ),
    "programs": Part(
        "process guests: threads, and programs that do the same as on the emulated host's own Linux",
        ("tests/run/test_threads.py", *(f"{_SAME}[{name}]" for name in _PROGRAMS)),
    ),
    "guests": Part("bare metal: all teaching guests", ("tests/guest/test_bare.py",)),
    "board": Part("bare metal: the board, interrupts, endings, state in snapshots", ("tests/board",)),
    "linux": Part(
        "stock Linux: to userland, its template, snapshot, forks with exec",
        ("tests/lab/test_linux_boot.py", "tests/lab/test_linux_template.py"),
    ),
}


def select(names: Iterable[str]) -> list[str]:
    """pytest's arguments for parts and whatever else is named; those of all parts if nothing but options is."""
    chosen: list[str] = []
    others: list[str] = []
    for name in names:
        (chosen if name in PARTS else others).append(name)
    if not chosen and all(name.startswith("-") for name in others):
        chosen = [*PARTS]
    return [argument for name in chosen for argument in PARTS[name].arguments] + others
