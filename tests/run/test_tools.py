"""The shell and the small tools of a Python template."""

import pytest

from pyvmm import Template

pytestmark = pytest.mark.kvm


def output(template: Template, code: str) -> str:
    result = template.run(code, timeout=60.0)
    assert (result.status, result.stderr) == ("ok", b""), result
    return result.stdout.decode()


def test_a_shell_from_subprocess_and_system(template: Template) -> None:
    code = """
import os, subprocess
ran = subprocess.run(["sh", "-c", "ls / | wc -l"], capture_output=True, text=True)
print(int(ran.stdout) == len(os.listdir("/")))
print(subprocess.check_output("echo one two | awk '{print $2}'", shell=True, text=True), end="", flush=True)
print(os.system("exit 3") >> 8, os.system("kill -9 $$"))
print(os.popen("printf %s:%s a b").read())
"""
    assert output(template, code) == "True\ntwo\n3 9\na:b\n"


def test_the_tools_of_posix_are_there(template: Template) -> None:
    code = """
import shutil
from subprocess import run, PIPE
names = "sh ls cat wc grep sed awk head tail sort uniq cut tr echo printf true false test env pwd mkdir rm cp mv ln"
names += " chmod touch find xargs date sleep uname id tee dirname basename expr diff cmp ["
print([name for name in names.split() if not shutil.which(name)])
script = '''set -e; cd /tmp; mkdir d; echo b > d/x; echo a >> d/x; cp d/x y; mv y z; ln -s z l; chmod 600 z; touch t
sort l | tee s; grep -c a s; sed 's/a/A/' s; cut -c1 s; tail -1 s; uniq s | wc -l; find d -name x; ls | xargs echo
diff -q d/x s > o || echo differ; test -f t; [ ! -e none ]; rm -r d; expr 6 \\\\* 7; basename /a/b.c .c; dirname /a/b
uname -s; id -u; date -u +%Y | wc -c; sleep 0.01; env -i A=1 env'''
print(run(["sh", "-c", script], stdout=PIPE, text=True).stdout)
"""
    assert output(template, code).split() == (
        [
            "[]",
            "a",
            "b",
            "1",
            "A",
            "b",
            "a",
            "b",
            "b",
            "2",
            "d/x",
            "d",
            "l",
            "s",
            "t",
            "z",
            "differ",
            "42",
            "b",
            "/a",
            "Linux",
            "1000",
            "5",
            "A=1",
        ]
    )


def test_an_alternative_is_found_by_both_names(template: Template) -> None:
    assert output(template, "import os; print(os.access('/bin/sh', os.X_OK), os.path.isdir('/bin/.'))") == "True True\n"


def test_the_tools_see_nothing_of_the_host(template: Template) -> None:
    code = "import os; os.system('hostname; whoami; ls /etc; ps -e | wc -l')"
    lines = output(template, code).splitlines()
    assert lines[:2] == ["sandbox", "user"]
    assert "hosts" in lines
    assert "shadow" not in lines
    assert int(lines[-1]) < 8
