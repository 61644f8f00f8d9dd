"""A machine's run loop: exits of every kind end a run clearly, time limits hold, and nothing is left behind."""

import errno
import os
import threading
import time

import pytest

from pyvmm import ForkFailed, Host, HostError
from pyvmm.kvm import Kvm, KvmError, Vcpu, Vm
from pyvmm.kvm.abi.exits import (
    KVM_EXIT_DEBUG,
    KVM_EXIT_FAIL_ENTRY,
    KVM_EXIT_HLT,
    KVM_EXIT_INTERNAL_ERROR,
    KVM_EXIT_MMIO,
    KVM_EXIT_SHUTDOWN,
    KVM_EXIT_SYSTEM_EVENT,
    KVM_EXIT_UNKNOWN,
)

pytestmark = pytest.mark.kvm


def after_its_start(sandbox, then) -> None:
    """Have KVM_RUN be real until the program has begun, and ``then`` from there on."""
    vcpu, kernel = sandbox.machine.vcpu, sandbox.kernel
    real = vcpu.run
    vcpu.run = lambda: then() if kernel.refreshed else real()


_ODD = {
    "INTERNAL_ERROR": KVM_EXIT_INTERNAL_ERROR, "FAIL_ENTRY": KVM_EXIT_FAIL_ENTRY, "SHUTDOWN": KVM_EXIT_SHUTDOWN,
    "UNKNOWN": KVM_EXIT_UNKNOWN, "SYSTEM_EVENT": KVM_EXIT_SYSTEM_EVENT, "DEBUG": KVM_EXIT_DEBUG, "HLT": KVM_EXIT_HLT,
    "MMIO": KVM_EXIT_MMIO, "255": 255, "-1": -1,
}  # fmt: skip


@pytest.mark.parametrize("reason", _ODD.values(), ids=_ODD)
def test_an_exit_that_no_program_causes_is_a_crash(run, reason):
    with run.template.fork() as sandbox:
        after_its_start(sandbox, lambda: reason)
        result = run.check(lambda: sandbox.run("print('on')"), 5.0)
    assert result.status == "crashed"
    assert b"processor stopped" in result.stderr


@pytest.mark.parametrize("number", [errno.EFAULT, errno.EINVAL, errno.ENOMEM, errno.EIO])
def test_an_error_of_kvm_run_is_a_crash_and_no_timeout(run, number):
    def fail():
        raise KvmError("KVM_RUN", number)

    with run.template.fork() as sandbox:
        after_its_start(sandbox, fail)
        result = run.check(lambda: sandbox.run("print('on')"), 5.0)
    assert result.status == "crashed"


def test_a_machine_that_cannot_be_made_is_a_failed_fork_and_leaves_nothing(run, monkeypatch):
    for owner, name in (
        (Kvm, "create_vm"),
        (Vm, "create_vcpu"),
        (Vm, "set_user_memory_region"),
        (Vcpu, "set_cpuid2"),
        (Vcpu, "set_msrs"),
    ):

        def fail(*_arguments, _name=name):
            raise KvmError(_name, errno.ENOMEM)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            with pytest.raises(ForkFailed, match=name):
                run("print(1)")
        run.canary()


def test_no_descriptors_left_is_a_failed_fork(run):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))
    try:
        with pytest.raises(ForkFailed):
            run.template.fork()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("code", ["while True: pass", "import time\ntime.sleep(100)"], ids=["spins", "sleeps"])
def test_stopping_from_another_thread_is_prompt(template, code):
    with template.fork(sinks=(lambda data: started.set(), None)) as sandbox:
        started = threading.Event()
        results = []
        thread = threading.Thread(
            target=lambda: results.append(sandbox.run("print('go', flush=True)\n" + code, timeout=60))
        )
        thread.start()
        assert started.wait(10)
        asked = time.monotonic()
        sandbox.stop()
        thread.join(10)
        assert time.monotonic() - asked < 0.5
    assert results[0].status == "timeout"


def test_stopping_before_the_run_begins_is_not_lost(template):
    with template.fork() as sandbox:
        sandbox.stop()
        began = time.monotonic()
        try:
            assert sandbox.run("while True: pass", timeout=30).status == "timeout"
        except ForkFailed:
            pass
        assert time.monotonic() - began < 2


def test_stopping_after_the_end_is_nothing(template):
    with template.fork() as sandbox:
        sandbox.run("print(1)")
        sandbox.stop()
    sandbox.stop()
    assert template.run("print(2)").stdout == b"2\n"


def test_closing_twice_is_fine(template):
    sandbox = template.fork()
    sandbox.close()
    sandbox.close()


def test_many_threads_run_at_once_and_each_gets_its_own(template):
    results: dict[int, bytes] = {}

    def work(number: int) -> None:
        results[number] = template.run(f"print(sum(range({number})))").stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{sum(range(number))}\n".encode() for number in range(24)}


def test_a_host_without_kvm_says_what_to_do(monkeypatch):
    def missing(path, *arguments, **options):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    monkeypatch.setattr(os, "open", missing)
    with pytest.raises(HostError, match="/dev/kvm"):
        Host()


def test_a_host_that_does_not_permit_kvm_says_so(monkeypatch):
    def forbidden(path, *arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(HostError, match="/dev/kvm"):
        Host()


def test_an_old_kvm_is_refused_by_name(monkeypatch):
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(Kvm, "check_extension", lambda self, capability: 0)
    with pytest.raises(HostError, match="KVM_CAP"):
        Host()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_signal_that_stops_guests_is_free_again_for_programs(template):
    import signal

    template.run("print(1)")
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert not signal.sigpending() & blocked
