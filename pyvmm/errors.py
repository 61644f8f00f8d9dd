"""The exceptions of pyvmm.

::

    PyvmmError
    ├── HostError                 this host cannot do what is needed; the message says what to do
    │   └── KvmError              an ioctl on /dev/kvm, a VM or a vCPU failed (also an OSError; in pyvmm.kvm)
    ├── TemplateError             a template cannot be built or used
    │   ├── TemplateNotFound      no such template on this machine; the message names the command that builds it
    │   ├── RecipeError           the recipe file is wrong
    │   └── SnapshotError         the snapshot on disk is damaged, or of another version or processor
    ├── BootError                 what is to be booted is no kernel or program for this machine, or does not fit into it
    ├── GuestFailed               a guest ended in a way that its own program cannot cause
    │   └── ForkFailed            a fork could not be made or refreshed; it was destroyed, nothing ran
    └── PoolError                 a request could not be run now
        ├── PoolSaturated         too many executions are waiting; try again later
        ├── PoolClosed            the pool is shutting down
        └── TemplateNotReady      the template for this language is not there (yet)

What a guest program does wrong is no exception: it is a ``Result``.
"""


class PyvmmError(Exception):
    """Base of everything that pyvmm raises on purpose."""


class HostError(PyvmmError):
    """The host lacks something: /dev/kvm, a permission, a capability, descriptors, memory."""


class TemplateError(PyvmmError):
    """A template cannot be built or used."""


class TemplateNotFound(TemplateError):
    """No template of that name has been built on this machine."""


class RecipeError(TemplateError):
    """A recipe file is malformed or names something that does not exist."""


class SnapshotError(TemplateError):
    """A snapshot is truncated, altered, of another format version or of another processor."""


class BootError(PyvmmError):
    """A kernel or bare-metal program, its initramfs or its command line cannot be put into the machine; the message
    says what to give instead.
    """


class GuestFailed(PyvmmError):
    """A guest ended in a way that its own program cannot cause."""


class ForkFailed(GuestFailed):
    """A fork could not be made, or could not be given fresh randomness and time; it was destroyed."""


class PoolError(PyvmmError):
    """A request could not be run now."""


class PoolSaturated(PoolError):
    """Too many executions are running and waiting.

    ``retry_after`` is the number of seconds after which trying again makes sense.
    """

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PoolClosed(PoolError):
    """The pool is shutting down and takes no more work."""


class TemplateNotReady(PoolError):
    """The template that the request needs is not ready."""
