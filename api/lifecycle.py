"""The life of the service: running, draining, aborting."""


class Lifecycle:
    """Running until ``drain()``; draining (no new execution) until ``abort()``, which stops those that still run.

    Only plain stores and loads, so both may be called from a signal handler.
    """

    def __init__(self) -> None:
        self.draining = False
        self.aborting = False

    def __repr__(self) -> str:
        state = "aborting" if self.aborting else "draining" if self.draining else "running"
        return f"<Lifecycle {state}>"

    def drain(self) -> None:
        """Take no more executions."""
        self.draining = True

    def abort(self) -> None:
        """Stop the executions that still run."""
        self.draining = self.aborting = True
