"""What a kernel needs of the machine that it runs on; the machine itself knows nothing of kernels."""

from typing import Protocol


class Processor(Protocol):
    """The vCPU: what of it is not in the register page."""

    def get_xsave(self) -> bytes: ...
    def set_xsave(self, data: bytes, /) -> None: ...
    def has_pending_exception(self) -> bool: ...


class Stage(Protocol):
    """The machine around the vCPU, as far as a kernel needs it."""

    def sleep(self, until_ns: int | None) -> None:
        """Sleep until CLOCK_MONOTONIC of the host reaches ``until_ns`` (None: for ever); does not return if the guest
        is to be stopped.
        """

    def check(self) -> None:
        """For the middle of long work: does not return if the guest is to be stopped."""

    def set_alarm(self, at_ns: int | None) -> None:
        """Interrupt the running guest (KVM_EXIT_INTR) at the host's CLOCK_MONOTONIC ``at_ns``; None: not at all."""
