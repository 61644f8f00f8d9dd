"""The line discipline of a terminal: what happens between the keys and the program (``drivers/tty/n_tty.c``).

What is typed is edited, echoed and cut into lines, or given as it is (raw mode); some keys send signals. What the
program writes gets its line ends. Nothing here knows of files or processes.

IUCLC, PARMRK and ECHOPRT have no effect, and a tab is erased as if the line had begun at the left margin.
"""

from collections import deque
from collections.abc import Callable

from pyvmm.linux.abi import termios as abi
from pyvmm.linux.abi.signal import SIGINT, SIGQUIT, SIGTSTP

#: ``N_TTY_BUF_SIZE``: a line that is longer loses its end.
_INPUT_MAX = 4096
#: Echoed bytes that may wait: more are lost.
_ECHO_MAX = 4096
_TAB = 8
_NEWLINE, _RETURN, _TAB_KEY, _BACKSPACE, _DISABLED = 10, 13, 9, 8, 0


class Settings:
    """``struct termios``."""

    __slots__ = ("cc", "cflag", "iflag", "lflag", "line", "oflag", "speeds")

    def __init__(self) -> None:
        self.iflag = abi.ICRNL | abi.IXON
        self.oflag = abi.OPOST | abi.ONLCR
        self.cflag = abi.B38400 | abi.CS8 | abi.CREAD
        self.lflag = (
            abi.ISIG | abi.ICANON | abi.ECHO | abi.ECHOE | abi.ECHOK | abi.ECHOCTL | abi.ECHOKE | abi.IEXTEN
        )  # fmt: skip
        self.line = 0
        self.cc = abi.INITIAL_CC
        self.speeds = (38400, 38400)

    def pack(self, *, with_speeds: bool) -> bytes:
        """As the program sees it."""
        fields = (self.iflag, self.oflag, self.cflag, self.lflag, self.line, self.cc)
        return abi.TERMIOS2.pack(*fields, *self.speeds) if with_speeds else abi.TERMIOS.pack(*fields)

    def unpack(self, data: bytes) -> None:
        """As the program wants it. A pseudo-terminal has eight bits and no parity."""
        if len(data) == abi.TERMIOS2.size:
            *fields, receiving, sending = abi.TERMIOS2.unpack(data)
            self.speeds = (receiving, sending)
        else:
            fields = list(abi.TERMIOS.unpack(data))
        self.iflag, self.oflag, cflag, self.lflag, self.line, self.cc = fields
        self.cflag = cflag & ~(abi.CSIZE | abi.PARENB) | abi.CS8 | abi.CREAD


class LineDiscipline:
    """Input on its way to the program, and the echo of it on its way back.

    :param signal: is called with the signal that a key stands for.
    """

    def __init__(self, signal: Callable[[int], None]) -> None:
        self.settings = Settings()
        self._signal = signal
        #: Lines that are finished, with what finished them (but for EOF), and the one that is being typed.
        self._lines: deque[bytearray] = deque()
        self._typed = bytearray()
        self._size = 0
        #: What is to be shown on the screen, by way of :meth:`output`.
        self.echoed = bytearray()
        self._is_literal = False
        #: Output was stopped by a key.
        self.is_stopped = False
        self._column = 0

    # --------------------------------------------------------------------------------------------------- for reading

    @property
    def is_canonical(self) -> bool:
        """Whether the program gets lines."""
        return bool(self.settings.lflag & abi.ICANON)

    @property
    def waiting(self) -> int:
        """Bytes that can be read."""
        return sum(map(len, self._lines)) if self.is_canonical else self._size

    @property
    def has_line(self) -> bool:
        """Whether a line is finished, be it an empty one (end of file)."""
        return bool(self._lines)

    @property
    def is_full(self) -> bool:
        """Whether nothing more can be typed now. A line that has no end yet is never in the way of its end."""
        return self._size >= _INPUT_MAX - 1 and not (self.is_canonical and not self._lines)

    def take_line(self, count: int) -> bytes:
        """Up to ``count`` bytes of the first line."""
        line = self._lines[0]
        data = bytes(line[:count])
        del line[:count]
        if not line:
            self._lines.popleft()
        self._size -= len(data)
        return data

    def take_raw(self, count: int) -> bytes:
        """Up to ``count`` bytes."""
        data = bytearray()
        while self._lines and len(data) < count:
            data += self.take_line(count - len(data))
        rest = count - len(data)
        data += self._typed[:rest]
        taken = len(self._typed[:rest])
        del self._typed[:rest]
        self._size -= taken
        return bytes(data)

    def flush_input(self) -> None:
        """Forget what was typed."""
        self._lines.clear()
        self._typed.clear()
        self._size = 0
        self._is_literal = False

    def set(self, data: bytes) -> None:
        """Other settings (``n_tty_set_termios()``)."""
        was_canonical = self.is_canonical
        self.settings.unpack(data)
        if self.is_canonical and not was_canonical and self._size:
            # What is there already counts as a line.
            everything = bytearray(self.take_raw(self._size))
            self._lines.append(everything)
            self._size = len(everything)
        if not self.settings.iflag & abi.IXON:
            self.is_stopped = False

    # ---------------------------------------------------------------------------------------------------- for typing

    def type(self, data: bytes) -> int:
        """Keys are pressed; how many could be taken."""
        for done, key in enumerate(data):
            if self.is_full:
                return done
            self._press(key)
        return len(data)

    def _press(self, key: int) -> None:
        """``n_tty_receive_char()``."""
        settings = self.settings
        iflag, lflag, cc = settings.iflag, settings.lflag, settings.cc
        if iflag & abi.ISTRIP:
            key &= 0x7F
        if self._is_literal:
            self._is_literal = False
            self._enter(key)
            return
        if iflag & abi.IXON and key != _DISABLED:
            if key == cc[abi.VSTART]:
                self.is_stopped = False
                return
            if key == cc[abi.VSTOP]:
                self.is_stopped = True
                return
        if lflag & abi.ISIG and key != _DISABLED and key in cc[: abi.VQUIT + 1] + cc[abi.VSUSP : abi.VSUSP + 1]:
            self._interrupt(key)
            return
        if self.is_stopped and iflag & abi.IXON and iflag & abi.IXANY:
            self.is_stopped = False
        is_return = key == _RETURN
        if is_return:
            if iflag & abi.IGNCR:
                return
            if iflag & abi.ICRNL:
                key = _NEWLINE
        elif key == _NEWLINE and iflag & abi.INLCR:
            key = _RETURN
        if lflag & abi.ICANON and self._edit(key):
            return
        self._enter(key, plain=is_return and key == _NEWLINE)

    def _interrupt(self, key: int) -> None:
        """A key that sends a signal: what was typed before is forgotten, unless NOFLSH."""
        settings = self.settings
        cc = settings.cc
        signo = SIGINT if key == cc[abi.VINTR] else SIGQUIT if key == cc[abi.VQUIT] else SIGTSTP
        if not settings.lflag & abi.NOFLSH:
            self.flush_input()
            self.echoed.clear()
        self._signal(signo)
        if settings.iflag & abi.IXON:
            self.is_stopped = False
        if settings.lflag & abi.ECHO:
            self._echo(key)

    def _edit(self, key: int) -> bool:
        """What only concerns lines; whether the key was for that."""
        settings = self.settings
        lflag, cc = settings.lflag, settings.cc
        extended = lflag & abi.IEXTEN
        if key == _NEWLINE:
            if lflag & (abi.ECHO | abi.ECHONL):
                self._echo_raw(_NEWLINE)
            self._finish(key)
        elif key == _DISABLED:
            return False
        elif key == cc[abi.VERASE] or (extended and key == cc[abi.VWERASE]):
            self._erase(word=key != cc[abi.VERASE])
        elif key == cc[abi.VKILL]:
            self._kill()
        elif extended and key == cc[abi.VLNEXT]:
            self._is_literal = True
            if lflag & abi.ECHO and lflag & abi.ECHOCTL:
                self._show(b"^\b")
        elif extended and key == cc[abi.VREPRINT] and lflag & abi.ECHO:
            self._echo(key)
            self._echo_raw(_NEWLINE)
            for typed in self._typed:
                self._echo(typed)
        elif key == cc[abi.VEOF]:
            self._finish(None)
        elif key == cc[abi.VEOL] or (extended and key == cc[abi.VEOL2]):
            if lflag & abi.ECHO:
                self._echo(key)
            self._finish(key)
        else:
            return False
        return True

    def _enter(self, key: int, *, plain: bool = False) -> None:
        if self.settings.lflag & abi.ECHO:
            if plain:
                self._echo_raw(key)
            else:
                self._echo(key)
        if self._size < _INPUT_MAX - 1:
            self._typed.append(key)
            self._size += 1

    def _finish(self, key: int | None) -> None:
        """The line is finished by ``key``; by EOF if None."""
        if key is not None:
            self._typed.append(key)
            self._size += 1
        self._lines.append(self._typed)
        self._typed = bytearray()

    # --------------------------------------------------------------------------------------------------- correcting

    def _erase(self, *, word: bool) -> None:
        """``eraser()``: the last character, or the last word."""
        in_word = False
        while self._typed:
            end = len(self._typed) - 1
            while self.settings.iflag & abi.IUTF8 and end and self._typed[end] & 0xC0 == 0x80:
                end -= 1
            key = self._typed[end]
            if word:
                if chr(key).isalnum() or key == ord("_"):
                    in_word = True
                elif in_word:
                    break
            self._remove(end, single=not word)
            if not word:
                break

    def _kill(self) -> None:
        """The whole line."""
        lflag = self.settings.lflag
        if not self._typed:
            return
        if not lflag & abi.ECHO or not (lflag & abi.ECHOK and lflag & abi.ECHOKE and lflag & abi.ECHOE):
            self._size -= len(self._typed)
            self._typed.clear()
            if lflag & abi.ECHO:
                self._echo(self.settings.cc[abi.VKILL])
                if lflag & abi.ECHOK:
                    self._echo_raw(_NEWLINE)
            return
        while self._typed:
            end = len(self._typed) - 1
            while self.settings.iflag & abi.IUTF8 and end and self._typed[end] & 0xC0 == 0x80:
                end -= 1
            self._remove(end, single=False)

    def _remove(self, start: int, *, single: bool) -> None:
        """Take away what was typed from ``start`` on (one character), from the screen also."""
        lflag, key = self.settings.lflag, self._typed[start]
        width = 1
        if key == _TAB_KEY:
            width = _TAB - self._width(self._typed[:start]) % _TAB
        elif _is_control(key):
            width = 2 if lflag & abi.ECHOCTL else 0
        self._size -= len(self._typed) - start
        del self._typed[start:]
        if not lflag & abi.ECHO:
            return
        if single and not lflag & abi.ECHOE:
            self._echo(self.settings.cc[abi.VERASE])
        else:
            self._show(b"\b" * width if key == _TAB_KEY else b"\b \b" * width)

    def _width(self, typed: bytearray) -> int:
        column = 0
        for key in typed:
            if key == _TAB_KEY:
                column += _TAB - column % _TAB
            elif _is_control(key):
                column += 2 if self.settings.lflag & abi.ECHOCTL else 0
            elif key & 0xC0 != 0x80 or not self.settings.iflag & abi.IUTF8:
                column += 1
        return column

    # ------------------------------------------------------------------------------------------------------- showing

    def _show(self, data: bytes) -> None:
        if len(self.echoed) + len(data) <= _ECHO_MAX:
            self.echoed += data

    def _echo(self, key: int) -> None:
        """``echo_char()``."""
        if self.settings.lflag & abi.ECHOCTL and _is_control(key) and key != _TAB_KEY:
            self._show(bytes((ord("^"), key ^ 0x40)))
        else:
            self._echo_raw(key)

    def _echo_raw(self, key: int) -> None:
        self._show(bytes((key,)))

    def output(self, data: bytes) -> bytes:
        """What is shown of what the program writes (``do_output_char()``)."""
        oflag = self.settings.oflag
        if not oflag & abi.OPOST:
            return data
        if oflag & (abi.OLCUC | abi.OCRNL | abi.ONOCR | abi.ONLRET) or oflag & abi.TABDLY == abi.XTABS:
            return b"".join(self._shown(byte) for byte in data)
        if oflag & abi.ONLCR:
            data = data.replace(b"\n", b"\r\n")
        return data

    def _shown(self, byte: int) -> bytes:
        oflag = self.settings.oflag
        if byte == _NEWLINE:
            if oflag & (abi.ONLRET | abi.ONLCR):
                self._column = 0
            return b"\r\n" if oflag & abi.ONLCR else b"\n"
        if byte == _RETURN:
            if oflag & abi.ONOCR and not self._column:
                return b""
            if oflag & abi.OCRNL:
                self._column = 0 if oflag & abi.ONLRET else self._column
                return b"\n"
            self._column = 0
        elif byte == _TAB_KEY:
            width = _TAB - self._column % _TAB
            self._column += width
            return b" " * width if oflag & abi.TABDLY == abi.XTABS else b"\t"
        elif byte == _BACKSPACE:
            self._column = max(self._column - 1, 0)
        elif not _is_control(byte):
            self._column += 1
            if oflag & abi.OLCUC:
                return bytes((byte,)).upper()
        return bytes((byte,))


def _is_control(key: int) -> bool:
    return key < 32 or key == 127
