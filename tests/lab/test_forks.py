"""What every host must be able to do, one after the other: the shortest answer to "does it work here?"."""

import pytest

pytestmark = pytest.mark.kvm


def test_twenty_forks_each_print_what_only_they_were_told(template):
    for number in range(20):
        result = template.run(f"print({number} + 1)")
        assert (result.stdout, result.stderr, result.exit_code, result.status) == (b"%d\n" % (number + 1), b"", 0, "ok")


def test_twenty_forks_that_live_at_once_do_not_see_each_other(template):
    forks = [template.fork() for _ in range(20)]
    try:
        for number, fork in enumerate(forks):
            result = fork.run(f"import os; open('/tmp/x', 'x').write('{number}'); print(open('/tmp/x').read())")
            assert (result.stdout, result.status) == (b"%d\n" % number, "ok")
    finally:
        for fork in forks:
            fork.close()


@pytest.mark.parametrize("code", ["while True: pass", "import os\nr, w = os.pipe(); os.read(r, 1)"])
def test_a_program_without_an_end_is_stopped(template, code):
    # Time enough for an emulated processor, which is why this is not one of the tests of limits.
    result = template.run("print('started', flush=True)\n" + code, timeout=2.0)
    assert (result.status, result.exit_code, result.stdout) == ("timeout", -1, b"started\n")
