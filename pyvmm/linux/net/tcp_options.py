"""The options of tcp(7). Nothing is lost or late on a loopback interface, so they are kept and given back, no more."""

from errno import EINVAL, ENOENT, ENOPROTOOPT

from pyvmm.linux.abi import socket as abi
from pyvmm.linux.abi.socket import SOL_TCP, SOMAXCONN
from pyvmm.linux.errors import GuestError
from pyvmm.linux.net.options import integer, pack_integer

#: (level, option) -> value.
Values = dict[tuple[int, int], int]

_CONGESTION = b"cubic"
_INFO_SIZE = 104
#: Options that are kept and given back: default, lowest and highest value.
_OPTIONS = {
    abi.TCP_NODELAY: (0, 0, 1), abi.TCP_MAXSEG: (32768, 88, 32767), abi.TCP_CORK: (0, 0, 1),
    abi.TCP_KEEPIDLE: (7200, 1, 32767), abi.TCP_KEEPINTVL: (75, 1, 32767), abi.TCP_KEEPCNT: (9, 1, 127),
    abi.TCP_SYNCNT: (6, 1, 127), abi.TCP_LINGER2: (60, -1, 1 << 30), abi.TCP_DEFER_ACCEPT: (0, 0, 1 << 30),
    abi.TCP_WINDOW_CLAMP: (0, 0, 1 << 30), abi.TCP_QUICKACK: (1, 0, 1), abi.TCP_USER_TIMEOUT: (0, 0, (1 << 31) - 1),
    abi.TCP_FASTOPEN: (0, 0, SOMAXCONN), abi.TCP_NOTSENT_LOWAT: (0, -(1 << 31), (1 << 31) - 1),
}  # fmt: skip


def set_tcp_option(values: Values, option: int, data: bytes) -> None:
    """``do_tcp_setsockopt()``: EINVAL, ENOPROTOOPT."""
    if option == abi.TCP_CONGESTION:
        if data[:15].split(b"\0")[0] not in (_CONGESTION, b"reno"):
            raise GuestError(ENOENT)
        return
    value = integer(data)
    known = _OPTIONS.get(option)
    if known is None:
        raise GuestError(ENOPROTOOPT)
    _, lowest, highest = known
    if (lowest, highest) == (0, 1):
        value = int(bool(value))
    if not lowest <= value <= highest:
        raise GuestError(EINVAL)
    values[SOL_TCP, option] = value


def get_tcp_option(values: Values, option: int, state: int) -> bytes:
    """``do_tcp_getsockopt()``; of TCP_INFO only the state is true."""
    if option == abi.TCP_CONGESTION:
        return _CONGESTION.ljust(16, b"\0")
    if option == abi.TCP_INFO:
        return bytes([state]).ljust(_INFO_SIZE, b"\0")
    known = _OPTIONS.get(option)
    if known is None:
        raise GuestError(ENOPROTOOPT)
    return pack_integer(values.get((SOL_TCP, option), known[0]))
