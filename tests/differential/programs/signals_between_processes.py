import os
import signal
import sys
import time


def child_of(function):
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        try:
            function()
        finally:
            os._exit(0)
    return pid


got = []
signal.signal(signal.SIGCHLD, lambda signo, frame: got.append(signo))
pid = child_of(lambda: None)
while not got:
    time.sleep(0.01)
print(got, os.waitpid(pid, 0)[1])
signal.signal(signal.SIGCHLD, signal.SIG_DFL)

pid = child_of(lambda: time.sleep(60))
os.kill(pid, signal.SIGSTOP)
print(os.WSTOPSIG(os.waitpid(pid, os.WUNTRACED)[1]) == signal.SIGSTOP, os.waitpid(pid, os.WUNTRACED | os.WNOHANG))
os.kill(pid, signal.SIGCONT)
print(os.WIFCONTINUED(os.waitpid(pid, os.WCONTINUED)[1]))
os.kill(pid, signal.SIGSTOP)
os.kill(pid, signal.SIGKILL)
print(os.WTERMSIG(os.waitpid(pid, 0)[1]))

pid = child_of(lambda: os._exit(9))
info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
print(info.si_pid == pid, info.si_status, info.si_code == os.CLD_EXITED, info.si_signo == signal.SIGCHLD)
info = os.waitid(os.P_PID, pid, os.WEXITED)
print(info.si_status)
pid = child_of(lambda: os.abort())
info = os.waitid(os.P_ALL, 0, os.WEXITED)
print(info.si_status == signal.SIGABRT, info.si_code in (os.CLD_KILLED, os.CLD_DUMPED))

# A group, and a signal to all of it.
leader = child_of(lambda: (os.setpgid(0, 0), time.sleep(60)))
os.setpgid(leader, leader)
member = child_of(lambda: time.sleep(60))
os.setpgid(member, leader)
print(os.getpgid(member) == leader)
os.killpg(leader, signal.SIGTERM)
print(sorted(os.WTERMSIG(os.waitpid(-leader, 0)[1]) for _ in range(2)))
for pid, signo in ((leader, 0), (2**22 - 1, 0), (os.getpid(), 65)):
    try:
        print(os.kill(pid, signo))
    except OSError as error:
        print(error.strerror)

# Blocked, waited for, queued.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN})
parent = os.getpid()
pid = child_of(
    lambda: [os.kill(parent, signo) for signo in (signal.SIGUSR2, signal.SIGRTMIN, signal.SIGRTMIN, signal.SIGUSR2)]
)
os.waitpid(pid, 0)
print(sorted(signal.sigpending() - {signal.SIGCHLD}))
print([int(signal.sigwait({signal.SIGUSR2, signal.SIGRTMIN})) for _ in range(3)])
print(signal.sigtimedwait({signal.SIGUSR1}, 0.01), signal.sigtimedwait({signal.SIGUSR1}, 0))
pid = child_of(lambda: os.kill(parent, signal.SIGUSR1))
info = signal.sigwaitinfo({signal.SIGUSR1})
print(info.si_signo == signal.SIGUSR1, info.si_pid == pid, info.si_code)
os.waitpid(pid, 0)


# Interrupted calls: with a handler that raises, with one that does not.
class Rang(Exception):
    pass


def ring(signo, frame):
    raise Rang


reader, writer = os.pipe()
signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.02)
try:
    os.read(reader, 1)
except Rang:
    print("interrupted")
signal.signal(signal.SIGALRM, lambda signo, frame: os.write(writer, b"from the handler"))
signal.setitimer(signal.ITIMER_REAL, 0.02)
print(os.read(reader, 100))
signal.setitimer(signal.ITIMER_REAL, 0.02)
begun = time.monotonic()
time.sleep(0.1)
print(time.monotonic() - begun >= 0.1, os.read(reader, 100))
print(signal.alarm(100), signal.alarm(0), signal.getitimer(signal.ITIMER_REAL))
hits = []
signal.signal(signal.SIGALRM, lambda signo, frame: hits.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
while len(hits) < 5:
    pass
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(hits))
signal.signal(signal.SIGPROF, lambda signo, frame: hits.append(2))
signal.setitimer(signal.ITIMER_PROF, 0.02)
while 2 not in hits:
    pass
print("profiled")

# What would be ignored can still be waited for.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGWINCH})
pid = os.fork()
if not pid:
    os.kill(os.getppid(), signal.SIGWINCH)
    os._exit(0)
print(sorted(signal.sigwait({signal.SIGCHLD, signal.SIGWINCH}) for _ in range(2)), os.waitpid(pid, 0)[1])
