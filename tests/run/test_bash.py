"""Programs in bash: as ``bash script.sh`` runs them on the host."""

import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import Shell

pytestmark = pytest.mark.kvm

#: Each is run on the host and in a fork; the sandbox's paths and numbers are its own, everything else is equal.
PROGRAMS = {
    "pipelines": "printf 'b\\na\\nc\\n' | sort | tr a-z A-Z | head -2",
    "an exit code": "exit 7",
    "the last command's code": "false",
    "a command that is not there": "echo before; no_such_command; echo $?",
    "a syntax error": "echo one\nif then\n",
    "an exit trap": "trap 'echo bye $?' EXIT; echo hello; exit 3",
    "errexit": "set -e; trap 'echo at $LINENO' ERR\ntrue\nfalse\necho never",
    "an unset variable": "set -u; echo $no_such_variable; echo never",
    "tracing": "set -x; a=1; echo $((a + 1)) 'two words'",
    "arguments": 'printf "<%s>" "$0" "$@"; echo $#',
    "arrays": 'a=(x "y z" w); declare -A m=([k]=v); echo "${#a[@]} ${a[1]} ${m[k]} ${!m[@]}"',
    "functions and sources": "f() { echo ${FUNCNAME[0]} ${BASH_SOURCE[0]##*/} ${BASH_LINENO[0]}; }\nf\n"
    "echo ${#FUNCNAME[@]}",
    "return at the top": "return 3 2>/dev/null; echo $?",
    "here documents": "cat <<END | sed 's/x/y/'\n$((6 * 7)) x\nEND",
    "a subshell": "(exit 4); echo $?; (cd /; pwd); x=$(printf 'a\\n\\n'); echo \"[$x]\"",
    "jobs": "sleep 0.01 & wait $!; echo $?; { sleep 5 & kill $!; wait $! 2>/dev/null; echo $?; }",
    "redirections": "cd /tmp; f=$(mktemp); echo data > $f; cat < $f; { echo out; echo err >&2; } 2>&1\n"
    "exec 5>&1; echo five >&5; rm $f",
    "a signal to itself": "trap 'echo caught' USR1; kill -USR1 $$; echo after",
    "process substitution": "diff <(printf 'a\\nb\\n') <(printf 'a\\nc\\n'); echo $?",
    "reading lines": "printf '1 2\\n3 4\\n' | while read -r a b; do echo $((a * b)); done",
    "text tools": "printf 'x,1\\ny,2\\nx,3\\n' | awk -F, '{s[$1]+=$2} END {for (k in s) print k, s[k]}' | sort",
    "files": "cd $(mktemp -d); mkdir -p a/b; touch a/b/{1..3}.txt; find . -type f | sort | xargs -n1 basename\n"
    "ls a/b | wc -l",
    "arithmetic and printf": "printf '%05.2f|%-4s|%x\\n' 3.14159 ab 255; echo $((2 ** 40 % 1000)); seq -s, 5",
    "globs and expansion": 'x=path/to/file.tar.gz; echo ${x##*/} ${x%%.*} ${x/to/from} ${x^^}; echo {a..e}{1,2}',
}  # fmt: skip


@pytest.mark.skipif(not shutil.which("bash"), reason="the host has no bash")
@pytest.mark.parametrize("name", PROGRAMS)
def test_as_on_the_host(bash: Shell, name: str, tmp_path: Path) -> None:
    script = tmp_path / "main.sh"
    script.write_text(PROGRAMS[name])
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    arguments = ["one", "two words", "", "line\nbreak"]
    there = subprocess.run(["bash", str(script), *arguments], capture_output=True, env=environment, cwd=tmp_path)
    here = bash(PROGRAMS[name], argv=arguments)

    def told(output: bytes) -> bytes:
        return output.replace(bytes(script), b"/home/user/main.sh")

    assert here.stdout == told(there.stdout)
    assert here.stderr == told(there.stderr)
    assert here.exit_code == (there.returncode if there.returncode >= 0 else 128 - there.returncode)


def test_death_by_a_signal(bash: Shell) -> None:
    result = bash("echo first; kill -KILL $$; echo never")
    assert (result.stdout, result.exit_code, result.status) == (b"first\n", 137, "crashed")


def test_random_numbers_and_process_numbers_differ_between_forks(bash: Shell) -> None:
    seen = [bash.lines("echo $RANDOM$RANDOM; echo $$; head -c 8 /dev/urandom | od -An -tx1") for _ in range(4)]
    for values in zip(*seen, strict=True):
        assert len(set(values)) == 4


def test_its_process_number_is_its_own(bash: Shell) -> None:
    assert bash.lines('[ $$ = $BASHPID ] && kill -0 $$ && [ "$(readlink /proc/self)" != $$ ] && echo yes') == ["yes"]


def test_standard_input_and_files(bash: Shell) -> None:
    result = bash("cat; cat data/x", stdin=b"from stdin\n", files={"data/x": b"from a file\n"})
    assert result.stdout == b"from stdin\nfrom a file\n"


def test_an_empty_program_and_a_large_one(bash: Shell) -> None:
    assert bash.lines("") == []
    assert bash.lines(f"x={'a' * 200_000}\necho ${{#x}}") == ["200000"]


def test_a_script_of_another_name(bash: Shell) -> None:
    assert bash.lines("echo ${0##*/}", name="greet") == ["greet"]


def test_a_time_out_keeps_what_was_written(bash: Shell) -> None:
    result = bash("echo begun; while :; do :; done", timeout=1.0)
    assert (result.stdout, result.exit_code, result.status) == (b"begun\n", -1, "timeout")


def test_the_environment_is_the_recipes(bash: Shell) -> None:
    names = {line.partition("=")[0] for line in bash.lines("env")}
    assert names == {"HOME", "USER", "LOGNAME", "PATH", "LANG", "PWD", "SHLVL", "_"}


def test_the_control_descriptor_is_gone(bash: Shell) -> None:
    assert bash.lines("ls /proc/self/fd | tr '\\n' ' '") == ["0 1 2 3 "]  # 3 is the folder that ls reads
