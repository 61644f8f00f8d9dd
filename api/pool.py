"""What the service asks of a pool; ``pyvmm.pool.LocalPool`` is one."""

from collections.abc import Mapping
from typing import Protocol

from pyvmm.pool import ExecRequest, TemplateStatus
from pyvmm.result import Result


class Pool(Protocol):
    """Runs code, each time in a freshly forked VM, from many threads at once."""

    def templates(self) -> Mapping[str, TemplateStatus]:
        """Every configured template by language; cheap, for it is asked with every request."""
        ...

    def execute(self, request: ExecRequest) -> Result:
        """Run it; what the program does wrong is in the result, what keeps it from being run is a ``PyvmmError``."""
        ...

    def live_forks(self) -> int:
        """How many VMs exist now."""
        ...
