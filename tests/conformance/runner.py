"""Runs one module of CPython's own suite as ``python -m unittest -q test.test_x`` does, and says how each test ended.

Run by the interpreter under test, on the host as well as in a sandbox, so it needs nothing but the standard library::

    python runner.py test.test_x [EXCLUDED...]

Every test that has ended gives one line on descriptor 1, which begins with a unit separator: a JSON list of its status
(``passed``, ``failed``, ``skipped``), its id, and the reason or the traceback. They come one by one, so that it can be
seen how far a module came that did not come to its end. The last line's status is ``end``.
"""

import importlib.util
import json
import os
import sys
import types
import unittest

_DETAIL_MAX = 4000


class Recorder(unittest.TextTestResult):
    """Writes a line for each test that has ended."""

    def startTest(self, test):
        super().startTest(test)
        self._outcome = ("passed", "")

    def addError(self, test, error):
        super().addError(test, error)
        self._fails(test, self.errors[-1][1])

    def addFailure(self, test, error):
        super().addFailure(test, error)
        self._fails(test, self.failures[-1][1])

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error is not None:
            found = self.failures if issubclass(error[0], test.failureException) else self.errors
            self._fails(test, f"{subtest}\n{found[-1][1]}")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self._fails(test, "unexpected success")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        if not isinstance(test, unittest.TestCase):
            write("skipped", test.id(), reason)  # a whole class or module
        elif self._outcome[0] == "passed":
            self._outcome = ("skipped", reason)

    def _fails(self, test, detail):
        if isinstance(test, unittest.TestCase):
            self._outcome = ("failed", detail if self._outcome[0] != "failed" else self._outcome[1])
        else:
            write("failed", test.id(), detail)  # setUpClass() or setUpModule()

    def stopTest(self, test):
        super().stopTest(test)
        write(self._outcome[0], test.id(), self._outcome[1])


class Runner(unittest.TextTestRunner):
    """``unittest.TextTestRunner`` that records."""

    resultclass = Recorder


def write(status, name, detail):
    """Say how a test ended."""
    line = b"\n\x1f" + json.dumps([status, name, detail[-_DETAIL_MAX:]]).encode() + b"\n"
    while line:
        line = line[os.write(1, line) :]


class Program(unittest.TestProgram):
    """``python -m unittest`` without the tests that are excluded."""

    excluded = frozenset()

    def createTests(self, *arguments, **options):
        super().createTests(*arguments, **options)
        if self.excluded:
            self._leave_out(self.test)

    def _leave_out(self, suite):
        kept = [test for test in suite if isinstance(test, unittest.TestSuite) or test.id() not in self.excluded]
        suite._tests = kept
        for test in kept:
            if isinstance(test, unittest.TestSuite):
                self._leave_out(test)


def make_multiprocessing(name, start_method):
    """CPython's ``test_multiprocessing_fork.py``, which does no more than this; installations that leave it out have
    all of its tests in ``_test_multiprocessing``.
    """
    tests = importlib.import_module("test._test_multiprocessing")
    module = types.ModuleType(name)
    install = getattr(tests, "install_tests_in_module_dict", None) or tests.install_tests_to_module_dict
    install(vars(module), start_method)
    sys.modules[name] = module
    setattr(sys.modules["test"], name.rpartition(".")[2], module)


def main():
    """Run the module that the arguments name."""
    name, *excluded = sys.argv[1:]
    if name == "test.test_multiprocessing_fork" and importlib.util.find_spec(name) is None:
        make_multiprocessing(name, "fork")
    Program.excluded = frozenset(excluded)
    sys.argv[1:] = []
    Program(
        module=None,
        argv=["python -m unittest", "-q", name],
        testRunner=Runner,
        exit=False,
    )
    write("end", name, "")


if __name__ == "__main__":
    main()
