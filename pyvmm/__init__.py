"""pyvmm: a VM you can fork, in Python.

::

    from pyvmm import Template

    with Template.load("python") as template:
        print(template.run("print(1 + 1)").stdout)

``pyvmm.kvm`` is KVM from Python, usable by itself; ``pyvmm.linux`` is a Linux personality for programs that run
straight on a vCPU.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyvmm.errors import (
        BootError,
        ForkFailed,
        GuestFailed,
        HostError,
        PoolClosed,
        PoolError,
        PoolSaturated,
        PyvmmError,
        RecipeError,
        SnapshotError,
        TemplateError,
        TemplateNotFound,
        TemplateNotReady,
    )
    from pyvmm.host import Host
    from pyvmm.pool import ExecRequest, LocalPool, TemplateStatus
    from pyvmm.result import Result
    from pyvmm.sandbox import Sandbox, Template

__version__ = "0.1.0"

_HOMES = {
    "pyvmm.errors": (
        "BootError",
        "ForkFailed",
        "GuestFailed",
        "HostError",
        "PoolClosed",
        "PoolError",
        "PoolSaturated",
        "PyvmmError",
        "RecipeError",
        "SnapshotError",
        "TemplateError",
        "TemplateNotFound",
        "TemplateNotReady",
    ),
    "pyvmm.host": ("Host",),
    "pyvmm.pool": ("ExecRequest", "LocalPool", "TemplateStatus"),
    "pyvmm.result": ("Result",),
    "pyvmm.sandbox": ("Sandbox", "Template"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BootError",
    "ExecRequest",
    "ForkFailed",
    "GuestFailed",
    "Host",
    "HostError",
    "LocalPool",
    "PoolClosed",
    "PoolError",
    "PoolSaturated",
    "PyvmmError",
    "RecipeError",
    "Result",
    "Sandbox",
    "SnapshotError",
    "Template",
    "TemplateError",
    "TemplateNotFound",
    "TemplateNotReady",
    "TemplateStatus",
]


def __getattr__(name: str) -> Any:
    # Loaded when first asked for: `pyvmm --help`, and who only wants pyvmm.kvm, need nothing of the rest.
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'pyvmm' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
