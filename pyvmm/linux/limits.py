"""What one sandbox may use, and the resource limits that it is told of (getrlimit(2))."""

from dataclasses import dataclass

RLIM_INFINITY = (1 << 64) - 1

#: Names and numbers of ``asm-generic/resource.h``.
RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_CORE, RLIMIT_RSS, RLIMIT_NPROC, RLIMIT_NOFILE = range(8)
RLIMIT_MEMLOCK, RLIMIT_AS, RLIMIT_LOCKS, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE = range(8, 13)
RLIMIT_NICE, RLIMIT_RTPRIO, RLIMIT_RTTIME, RLIM_NLIMITS = range(13, 17)


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard limits of a sandbox, all bytes or counts."""

    memory_bytes: int = 512 << 20
    output_bytes: int = 1 << 20
    #: Files: what the writable layer may hold in all (it is host memory), and how many inodes.
    file_bytes: int = 256 << 20
    inodes: int = 32_768
    nofile: int = 1024
    #: Threads and processes, zombies included.
    tasks: int = 1024

    def initial_rlimits(self) -> list[tuple[int, int]]:
        """(soft, hard) of every resource, by number."""
        limits = [(RLIM_INFINITY, RLIM_INFINITY)] * RLIM_NLIMITS
        limits[RLIMIT_STACK] = (8 << 20, RLIM_INFINITY)
        limits[RLIMIT_CORE] = (0, 0)
        limits[RLIMIT_NPROC] = (self.tasks, self.tasks)
        limits[RLIMIT_NOFILE] = (self.nofile, self.nofile)
        limits[RLIMIT_MEMLOCK] = (8 << 20, 8 << 20)
        limits[RLIMIT_SIGPENDING] = (1024, 1024)
        limits[RLIMIT_MSGQUEUE] = (819_200, 819_200)
        limits[RLIMIT_NICE] = limits[RLIMIT_RTPRIO] = (0, 0)
        return limits
