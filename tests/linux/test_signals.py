"""Signal state, and the frames through which handlers are entered and left."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyvmm.kvm import KvmRegs
from pyvmm.linux import sigframe
from pyvmm.linux.abi.mman import PROT_READ, PROT_WRITE
from pyvmm.linux.abi.signal import (
    SA_NODEFER,
    SA_ONSTACK,
    SA_RESETHAND,
    SA_RESTORER,
    SA_SIGINFO,
    SIG_DFL,
    SIG_IGN,
    SIGABRT,
    SIGCHLD,
    SIGKILL,
    SIGRTMIN,
    SIGSEGV,
    SIGSTOP,
    SIGUSR1,
    SIGUSR2,
    SS_AUTODISARM,
    SS_DISABLE,
)
from pyvmm.linux.cpu import initial_xsave
from pyvmm.linux.errors import GuestExit
from pyvmm.linux.exceptions import signal_of
from pyvmm.linux.layout import TASK_SIZE
from pyvmm.linux.process import Process
from pyvmm.linux.signals import Action, FrozenSignals, SharedSignals, SignalInfo, SignalState
from tests.linux.space import FIXED, PAGE, Space

_STACK = 0x10_0000_0000
_STACK_SIZE = 16 * PAGE
_HANDLER, _RESTORER = 0x40_1000, 0x40_2000
_NAMES = [name for name, _ in KvmRegs._fields_]
_WILD = [0, 1, 8, 127, 4096, _STACK, TASK_SIZE, 1 << 47, 0xFFFF_8000_0000_0000, 2**63, 2**64 - 8, 2**64 - 1]


class Cpu:
    """The part of the vCPU that signal frames use."""

    def __init__(self) -> None:
        self.values = dict.fromkeys(_NAMES, 0)

    def registers(self) -> dict[str, int]:
        return dict(self.values)

    def set_registers(self, values: dict[str, int]) -> None:
        assert all(0 <= value < 1 << 64 for value in values.values())
        self.values = dict(values)

    def set_result(self, value: int) -> None:
        self.values["rax"] = value

    @property
    def rsp(self) -> int:
        return self.values["rsp"]


class Xsave:
    """Extended state that refuses what a processor would."""

    def __init__(self) -> None:
        self.state = bytearray(2696)
        self.state[512] = 3
        self.set_to: bytes | None = None

    def get_xsave(self) -> bytes:
        return bytes(self.state)

    def set_xsave(self, data: bytes, /) -> None:
        assert len(data) == len(self.state)
        bits, compact = struct.unpack_from("<QQ", data, 512)
        if bits & ~0xE7 or compact or any(data[528:576]):
            raise OSError("KVM_SET_XSAVE failed")
        self.set_to = bytes(data)


class _Kernel:
    """What a process knows of its kernel."""

    first_process: Process


@dataclass
class Thread:
    """A task as the signal code sees it."""

    space: Space
    cpu: Cpu = field(default_factory=Cpu)
    vcpu: Xsave = field(default_factory=Xsave)
    signals: SignalState = field(default_factory=SignalState)
    process: Process = field(default_factory=lambda: Process(_Kernel(), 300, None))  # type: ignore[arg-type]
    interrupted: None = None

    def __post_init__(self) -> None:
        self.process.kernel.first_process = self.process

    @property
    def mem(self) -> object:
        return self.space.user

    def handle(self, signo: int, flags: int = SA_RESTORER, mask: int = 0, handler: int = _HANDLER) -> None:
        self.signals.actions[signo] = Action(handler, flags, _RESTORER, mask)

    def deliver(self) -> None:
        sigframe.deliver(self, self.vcpu)  # type: ignore[arg-type]

    def sigreturn(self) -> None:
        self.cpu.values["rsp"] += 8  # the handler's RET has taken the return address
        sigframe.restore(self, self.vcpu)  # type: ignore[arg-type]


@pytest.fixture
def thread() -> Iterator[Thread]:
    space = Space()
    space.mm.map(_STACK, _STACK_SIZE, PROT_READ | PROT_WRITE, FIXED)
    made = Thread(space)
    made.cpu.values.update({name: 1000 + index for index, name in enumerate(_NAMES)})
    made.cpu.values.update(rsp=_STACK + _STACK_SIZE, rip=0x40_0000, rflags=0x44)
    yield made
    space.close()


def died_of(call) -> int:
    with pytest.raises(GuestExit) as caught:
        call()
    return caught.value.signo


# ----------------------------------------------------------------------------------------------------------- state


def test_a_pending_signal_is_not_queued_twice() -> None:
    signals = SignalState()
    signals.send(SIGUSR1, SignalInfo(SIGUSR1, value=1))
    signals.send(SIGUSR1, SignalInfo(SIGUSR1, value=2))
    assert signals.next_deliverable().value == 1  # type: ignore[union-attr]
    assert signals.next_deliverable() is None


def test_ignored_signals_leave_nothing_pending_unless_blocked() -> None:
    signals = SignalState()
    signals.send(SIGCHLD)
    assert not signals.pending_mask()
    signals.blocked = 1 << SIGCHLD - 1
    signals.send(SIGCHLD)
    assert signals.pending_mask() == 1 << SIGCHLD - 1


def test_stop_signals_do_not_stop_the_first_process_for_ever(thread: Thread) -> None:
    thread.signals.send(SIGSTOP)
    thread.deliver()
    assert not thread.signals.pending_mask() and not thread.process.stopped


def test_real_time_signals_are_queued_in_order() -> None:
    signals = SignalState()
    for value in range(3):
        assert signals.send(SIGRTMIN, SignalInfo(SIGRTMIN, value=value))
    assert [signals.next_deliverable().value for _ in range(3)] == [0, 1, 2]  # type: ignore[union-attr]
    assert signals.next_deliverable() is None


def test_no_more_real_time_signals_are_queued_than_the_limit() -> None:
    signals = SignalState()
    assert [signals.send(SIGRTMIN) for _ in range(1026)].count(False) == 1


def test_signals_to_the_process_reach_a_thread_that_does_not_block_them() -> None:
    shared = SharedSignals()
    one, other = SignalState(shared), SignalState(shared)
    one.blocked = 1 << SIGUSR1 - 1
    shared.pending.add(SignalInfo(SIGUSR1))
    assert one.next_deliverable() is None
    assert other.next_deliverable().signo == SIGUSR1  # type: ignore[union-attr]


def test_blocked_signals_wait_and_the_lowest_comes_first() -> None:
    signals = SignalState()
    signals.blocked = 1 << SIGUSR1 - 1
    for signo in (SIGUSR2, SIGUSR1, SIGABRT):
        signals.send(signo)
    assert signals.next_deliverable().signo == SIGABRT  # type: ignore[union-attr]
    assert signals.next_deliverable().signo == SIGUSR2  # type: ignore[union-attr]
    assert signals.next_deliverable() is None
    signals.blocked = 0
    assert signals.next_deliverable().signo == SIGUSR1  # type: ignore[union-attr]


def test_saved_state_comes_back_as_a_copy() -> None:
    signals = SignalState()
    signals.actions[SIGUSR1] = Action(_HANDLER, SA_SIGINFO, _RESTORER, 5)
    signals.blocked = 9
    signals.stack_address, signals.stack_size, signals.stack_flags = 0x1000, 0x2000, 0
    frozen = FrozenSignals(signals.save())
    one, other = SignalState.restore(frozen), SignalState.restore(frozen)
    assert one.save() == signals.save()
    one.actions.clear()
    assert other.actions


# ---------------------------------------------------------------------------------------------------------- frames


def test_a_handler_is_entered_with_its_signal_on_an_aligned_stack(thread: Thread) -> None:
    thread.handle(SIGUSR1, SA_RESTORER | SA_SIGINFO)
    thread.signals.send(SIGUSR1, SignalInfo(SIGUSR1, 0, pid=77, uid=88))
    before = thread.cpu.registers()
    thread.deliver()
    now = thread.cpu.values
    assert (now["rip"], now["rdi"]) == (_HANDLER, SIGUSR1)
    assert (now["rsp"] + 8) % 16 == 0, "the ABI wants RSP + 8 aligned at a function's first instruction"
    assert now["rsp"] < before["rsp"] - 128, "the red zone is the program's"
    assert thread.space.user.read_u64(now["rsp"]) == _RESTORER
    assert struct.unpack("<iiixxxxiI", thread.space.user.read(now["rsi"], 24)) == (SIGUSR1, 0, 0, 77, 88)
    assert thread.signals.blocked == 1 << SIGUSR1 - 1


def test_returning_from_a_handler_gives_every_register_back(thread: Thread) -> None:
    thread.handle(SIGUSR1, SA_RESTORER | SA_SIGINFO, mask=1 << SIGUSR2 - 1)
    thread.signals.blocked = 1 << SIGABRT - 1
    thread.signals.send(SIGUSR1)
    before = thread.cpu.registers()
    thread.deliver()
    thread.cpu.values.update(dict.fromkeys(("rax", "rbx", "rcx", "r8", "r15", "rbp"), 7))
    thread.sigreturn()
    assert thread.cpu.registers() == before
    assert thread.signals.blocked == 1 << SIGABRT - 1
    assert thread.vcpu.set_to is not None


def test_two_signals_nest_and_come_back_in_order(thread: Thread) -> None:
    thread.handle(SIGUSR1)
    thread.handle(SIGUSR2, handler=_HANDLER + 16)
    before = thread.cpu.registers()
    thread.signals.send(SIGUSR1)
    thread.signals.send(SIGUSR2)
    thread.deliver()
    assert thread.cpu.values["rip"] == _HANDLER + 16
    thread.sigreturn()
    assert thread.cpu.values["rip"] == _HANDLER
    thread.sigreturn()
    assert thread.cpu.registers() == before


def test_a_one_shot_handler_is_reset_and_nodefer_blocks_nothing(thread: Thread) -> None:
    thread.handle(SIGUSR1, SA_RESTORER | SA_RESETHAND | SA_NODEFER)
    thread.signals.send(SIGUSR1)
    thread.deliver()
    assert thread.signals.action(SIGUSR1).handler == SIG_DFL
    assert thread.signals.blocked == 0


@pytest.mark.parametrize("signo", [SIGKILL, SIGUSR1, SIGABRT, SIGSEGV, 34, 64])
def test_a_signal_without_a_handler_ends_the_program(thread: Thread, signo: int) -> None:
    thread.signals.send(signo)
    assert died_of(thread.deliver) == signo


@pytest.mark.parametrize("handler", [SIG_DFL, SIG_IGN])
def test_a_fault_cannot_be_ignored(thread: Thread, handler: int) -> None:
    thread.handle(SIGSEGV, handler=handler)
    assert died_of(lambda: sigframe.force(thread, thread.vcpu, SignalInfo(SIGSEGV))) == SIGSEGV  # type: ignore[arg-type]


def test_a_blocked_fault_ends_the_program(thread: Thread) -> None:
    thread.handle(SIGSEGV)
    thread.signals.blocked = 1 << SIGSEGV - 1
    assert died_of(lambda: sigframe.force(thread, thread.vcpu, SignalInfo(SIGSEGV))) == SIGSEGV  # type: ignore[arg-type]


@pytest.mark.parametrize("stack", _WILD, ids=hex)
def test_a_frame_that_does_not_fit_its_stack_ends_the_program(thread: Thread, stack: int) -> None:
    thread.handle(SIGUSR1)
    thread.cpu.values["rsp"] = stack
    thread.signals.send(SIGUSR1)
    assert died_of(thread.deliver) == SIGSEGV


def test_where_a_frame_does_not_fit_a_handler_of_sigsegv_runs_on_its_own_stack(thread: Thread) -> None:
    thread.handle(SIGUSR1)
    thread.handle(SIGSEGV, SA_RESTORER | SA_ONSTACK)
    thread.signals.set_stack(0, _STACK, 0, 8 * PAGE)
    thread.cpu.values["rsp"] = 16
    thread.signals.send(SIGUSR1)
    thread.deliver()
    assert (thread.cpu.values["rdi"], thread.cpu.values["rip"]) == (SIGSEGV, _HANDLER)
    assert _STACK < thread.cpu.rsp < _STACK + 8 * PAGE


@pytest.mark.parametrize("address", [a for a in _WILD if a != _STACK], ids=hex)
@pytest.mark.parametrize("size", [2048, 1 << 47, 2**64 - 1], ids=hex)
def test_a_wild_alternate_stack_ends_the_program(thread: Thread, address: int, size: int) -> None:
    thread.handle(SIGUSR1, SA_RESTORER | SA_ONSTACK)
    thread.cpu.values["rsp"] = 0
    thread.signals.stack_address, thread.signals.stack_size, thread.signals.stack_flags = address, size, 0
    thread.signals.send(SIGUSR1)
    assert died_of(thread.deliver) == SIGSEGV


def test_an_alternate_stack_is_used_from_its_top(thread: Thread) -> None:
    thread.handle(SIGUSR1, SA_RESTORER | SA_ONSTACK)
    thread.signals.stack_address, thread.signals.stack_size, thread.signals.stack_flags = _STACK, 8 * PAGE, 0
    thread.signals.send(SIGUSR1)
    thread.deliver()
    assert _STACK < thread.cpu.rsp < _STACK + 8 * PAGE
    thread.sigreturn()
    assert thread.cpu.rsp == _STACK + _STACK_SIZE


def test_a_stack_that_disarms_itself_is_armed_again_by_the_return(thread: Thread) -> None:
    thread.handle(SIGUSR1, SA_RESTORER | SA_ONSTACK)
    armed = (_STACK, 8 * PAGE, SS_AUTODISARM)
    thread.signals.stack_address, thread.signals.stack_size, thread.signals.stack_flags = armed
    for _ in range(2):
        thread.signals.send(SIGUSR1)
        thread.deliver()
        assert thread.signals.stack_flags == SS_DISABLE
        thread.sigreturn()
        assert (thread.signals.stack_address, thread.signals.stack_size, thread.signals.stack_flags) == armed


def test_returning_from_a_handler_gives_the_alternate_stack_back(thread: Thread) -> None:
    thread.handle(SIGUSR1)
    thread.signals.set_stack(0, _STACK, 0, 8 * PAGE)
    thread.signals.send(SIGUSR1)
    thread.deliver()
    thread.signals.set_stack(0, 0, SS_DISABLE, 0)
    thread.sigreturn()
    assert (thread.signals.stack_address, thread.signals.stack_size, thread.signals.stack_flags) == (
        _STACK,
        8 * PAGE,
        0,
    )


def test_a_handler_without_a_restorer_has_no_way_back(thread: Thread) -> None:
    thread.handle(SIGUSR1, 0)
    thread.signals.send(SIGUSR1)
    assert died_of(thread.deliver) == SIGSEGV


def test_a_program_does_not_get_flags_or_selectors_from_a_frame(thread: Thread) -> None:
    thread.handle(SIGUSR1)
    thread.signals.send(SIGUSR1)
    thread.deliver()
    context = thread.cpu.rsp + 8 + 40  # uc_mcontext
    thread.space.user.write_u64(context + 17 * 8, 0xFFFF_FFFF_FFFF_FFFF)
    thread.space.user.write(context + 18 * 8, struct.pack("<4H", 0x10, 0x18, 0x10, 0x18))
    thread.sigreturn()
    assert thread.cpu.values["rflags"] & 0x3000 == 0, "IOPL"
    assert thread.cpu.values["rflags"] & ~0x0024_4FD7 == 0


@pytest.mark.parametrize("rsp", _WILD, ids=hex)
def test_returning_through_a_frame_that_is_not_there_ends_the_program(thread: Thread, rsp: int) -> None:
    thread.cpu.values["rsp"] = rsp
    if rsp == _STACK:
        thread.space.mm.unmap(_STACK, PAGE)
    assert died_of(lambda: sigframe.restore(thread, thread.vcpu)) == SIGSEGV  # type: ignore[arg-type]


def test_a_frame_that_is_not_there_is_a_sigsegv_that_can_be_caught(thread: Thread) -> None:
    thread.handle(SIGSEGV, SA_RESTORER | SA_ONSTACK)
    thread.signals.set_stack(0, _STACK, 0, 8 * PAGE)
    thread.cpu.values["rsp"] = 8
    sigframe.restore(thread, thread.vcpu)  # type: ignore[arg-type]
    assert thread.cpu.values["rip"] == _HANDLER
    assert thread.cpu.values["rdi"] == SIGSEGV
    assert _STACK < thread.cpu.values["rsp"] < _STACK + 8 * PAGE


@pytest.mark.parametrize("offset", [24, 512], ids=["mxcsr", "features"])
def test_extended_state_that_a_processor_refuses_ends_the_program(thread: Thread, offset: int) -> None:
    thread.handle(SIGUSR1)
    thread.signals.send(SIGUSR1)
    thread.deliver()
    fpstate = thread.space.user.read_u64(thread.cpu.rsp + 8 + 40 + 18 * 8 + 8 + 32)
    thread.space.user.write_u32(fpstate + offset, 0xFFFF_FFFF)
    assert died_of(thread.sigreturn) == SIGSEGV
    assert thread.vcpu.set_to is not None
    assert thread.vcpu.set_to == initial_xsave(len(thread.vcpu.set_to)), "it begins anew"


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frame=st.binary(min_size=304, max_size=304),
    words=st.dictionaries(st.integers(0, 37), st.sampled_from(_WILD)),
    rsp=st.sampled_from([_STACK, _STACK + PAGE + 8]),
)
def test_any_frame_gives_sane_registers_or_ends_the_program(
    thread: Thread, frame: bytes, words: dict[int, int], rsp: int
) -> None:
    image = bytearray(frame)
    for index, value in words.items():
        struct.pack_into("<Q", image, 8 * index, value)
    thread.space.user.write(rsp, image)
    thread.cpu.values["rsp"] = rsp
    try:
        sigframe.restore(thread, thread.vcpu)  # type: ignore[arg-type]
    except GuestExit as end:
        assert end.signo == SIGSEGV
        return
    assert thread.cpu.values["rflags"] & 0x3000 == 0
    # And the next signal finds a state that it can put into a frame.
    thread.cpu.values["rsp"] = _STACK + _STACK_SIZE
    thread.signals.blocked = 0
    thread.handle(SIGUSR1)
    thread.signals.send(SIGUSR1)
    thread.deliver()


def test_every_exception_has_a_signal() -> None:
    assert {signal_of(vector)[0] for vector in range(256)} <= {4, 5, 7, 8, 11}
    assert signal_of(14)[0] == signal_of(13)[0] == SIGSEGV
