# ruff: noqa
# A process group in which somebody is stopped, and that nobody is left to continue, gets SIGHUP and SIGCONT.
import signal, time
from common import fails, os

reader, writer = os.pipe()


def tell(text):
    os.write(writer, text.encode() + b"\n")


def heard(count):
    found = b""
    while found.count(b"\n") < count:
        found += os.read(reader, 100)
    return sorted(found.decode().split())


def child(function):
    pid = os.fork()
    if not pid:
        try:
            function()
        finally:
            os._exit(0)
    return pid


def listens(stops, alone=True):
    """A process, in a group of its own, that tells of the signals it gets."""

    def run():
        if alone:
            os.setpgid(0, 0)
        for signo in (signal.SIGHUP, signal.SIGCONT):
            signal.signal(signo, lambda signo, _: tell(signal.Signals(signo).name))
        tell("ready")
        if stops:
            os.kill(os.getpid(), stops)
            tell("continued")
        else:
            time.sleep(0.3)
            tell("undisturbed")

    return run


# The parent ends: its child's group is orphaned.
def parent(stops):
    pid = child(listens(stops))
    if stops:
        os.waitpid(pid, os.WUNTRACED)
    else:
        time.sleep(0.1)
    tell("parent")


for stops in (signal.SIGSTOP, signal.SIGTSTP):
    os.waitpid(child(lambda: parent(stops)), 0)
    print(heard(5))
os.waitpid(child(lambda: parent(0)), 0)
print(heard(3))


# It need not be the stopped one's own parent: the leader of a group ends, whose child is stopped.
def leader():
    os.setpgid(0, 0)
    pid = child(listens(signal.SIGSTOP, alone=False))
    os.waitpid(pid, os.WUNTRACED)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


os.waitpid(child(leader), 0)
print(heard(4))


# Somebody in the session is left who is the parent of one of the group: nothing happens.
def of_two():
    os.setpgid(0, 0)
    pid = child(listens(signal.SIGSTOP, alone=False))
    os.waitpid(pid, os.WUNTRACED)
    os.write(writer, b"%d\n" % pid)
    time.sleep(60)


pid = child(of_two)
stopped = max(map(int, filter(str.isdigit, heard(2))))
other = child(lambda: (os.setpgid(0, pid), tell("joined"), time.sleep(60)))
print(heard(1))
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
time.sleep(0.1)
tell("silence")
print(heard(1))
os.kill(other, signal.SIGKILL)
os.waitpid(other, 0)
print(heard(3))


# In an orphaned group SIGTSTP stops nobody any more; SIGSTOP does.
def orphan():
    os.setsid()
    os.kill(os.getpid(), signal.SIGTSTP)
    tell("goes-on")


os.waitpid(child(orphan), 0)
print(heard(1))
