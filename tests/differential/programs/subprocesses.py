import os
import signal
import subprocess
import sys

PYTHON = [sys.executable, "-S", "-E"]


def run(code, **options):
    done = subprocess.run([*PYTHON, "-c", code], capture_output=True, text=True, **options)
    print(repr(done.stdout), repr(done.stderr[-60:]), done.returncode)


run("print('out'); import sys; print('err', file=sys.stderr)")
run("import sys; print(sys.stdin.read()[::-1])", input="hello" * 3)
run("raise SystemExit(3)")
run("import os; os.kill(os.getpid(), 15)")
run("import os; print(sorted(os.environ.items()))", env={"A": "1", "LC_ALL": "C"})
run("import os; print(os.getcwd())", cwd="/tmp")
run("import os; print(len(os.listdir('/proc/self/fd')))", close_fds=True)
big = subprocess.run([*PYTHON, "-c", "import sys; sys.stdout.write('x' * 300_000)"], capture_output=True)
print(len(big.stdout), big.returncode)
for arguments in (["/nowhere"], ["/etc"], ["/etc/hostname-that-is-not-there"]):
    try:
        subprocess.run(arguments)
    except OSError as error:
        print(type(error).__name__, error.errno, error.filename)
try:
    subprocess.run([*PYTHON, "-c", "import time; time.sleep(60)"], timeout=0.2)
except subprocess.TimeoutExpired:
    print("expired")
process = subprocess.Popen(
    [*PYTHON, "-c", "import time; print('up', flush=True); time.sleep(60)"], stdout=subprocess.PIPE
)
print(process.stdout.readline(), process.poll())
process.terminate()
print(process.wait() == -signal.SIGTERM)
process.stdout.close()
with open("/tmp/a-script", "w") as file:
    file.write(f"#!{sys.executable} -S\nimport sys\nprint('script', sys.argv)\n")
os.chmod("/tmp/a-script", 0o755)
print(subprocess.run(["/tmp/a-script", "one", "two"], capture_output=True, text=True).stdout)
with open("/tmp/no-program", "w") as file:
    file.write("neither this nor that\n")
os.chmod("/tmp/no-program", 0o755)
for path, mode in (("/tmp/no-program", 0o755), ("/tmp/no-program", 0o644)):
    os.chmod(path, mode)
    try:
        subprocess.run([path])
    except OSError as error:
        print(error.errno, error.strerror)
os.unlink("/tmp/no-program")
os.unlink("/tmp/a-script")
first = subprocess.Popen([*PYTHON, "-c", "print('one two three')"], stdout=subprocess.PIPE)
second = subprocess.Popen(
    [*PYTHON, "-c", "import sys; print(len(sys.stdin.read().split()))"], stdin=first.stdout, stdout=subprocess.PIPE
)
first.stdout.close()
print(second.communicate()[0], first.wait())
with subprocess.Popen([*PYTHON, "-c", "pass"], start_new_session=True) as process:
    pass
print(process.returncode)
process = subprocess.Popen(
    [*PYTHON, "-c", "import os; print(os.getpgid(0) == os.getpid())"], stdout=subprocess.PIPE, process_group=0
)
print(process.communicate()[0])
process = subprocess.Popen([*PYTHON, "-c", "print(1)"], stdout=subprocess.PIPE, preexec_fn=lambda: os.umask(0o077))
print(process.communicate()[0])
try:
    os.execv(sys.executable, ["x" * 140_000])
except OSError as error:
    print(error.strerror)
sys.stdout.flush()
os.execv(sys.executable, [*PYTHON, "-c", "print('became another')"])
