"""The lab: an AMD machine with hardware KVM, emulated by QEMU without any KVM, with this pyvmm inside.

::

    parts      which tests run there, by name
    contents   what is inside: kernel and modules, Python and its packages, tools of this host, this checkout
    machine    QEMU, its console, and the results that come back
    init       the first program inside; runs there, not here

An emulated processor is some ten times slower than a real one, but it is AMD's SVM with nested paging, served by
Linux's own ``kvm_amd``: what a guest sees there is what it sees on hardware.
"""

from pyvmm.lab.contents import Contents, prepare
from pyvmm.lab.machine import Results, find_qemu, serve, test
from pyvmm.lab.parts import PARTS, Part

__all__ = ["PARTS", "Contents", "Part", "Results", "find_qemu", "prepare", "serve", "test"]
