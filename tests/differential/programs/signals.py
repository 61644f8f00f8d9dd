# ruff: noqa
from common import fails, os

import signal

print(signal.getsignal(2), signal.getsignal(13), signal.signal(10, signal.SIG_IGN), signal.getsignal(10))
os.kill(os.getpid(), 10)
log = []
signal.signal(10, lambda n, f: log.append(n))
signal.signal(12, lambda n, f: os.kill(os.getpid(), 10))
os.kill(os.getpid(), 12)
print(log)
print(signal.pthread_sigmask(signal.SIG_BLOCK, {10, 40}), signal.sigpending())
os.kill(os.getpid(), 10)
os.kill(os.getpid(), 40)
print(sorted(signal.sigpending()), signal.sigtimedwait({40}, 1).si_signo)
print(
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {10}),
    log,
    fails(signal.signal, 9, signal.SIG_IGN),
    fails(os.kill, os.getpid(), 0),
    signal.strsignal(11),
)
