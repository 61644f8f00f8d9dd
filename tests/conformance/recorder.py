"""A plugin of pytest that says how each test ended, in the lines that ``runner.py`` describes.

Run in a sandbox as well as on the host, so it needs nothing but pytest. An id begins with the module's name in place of
its file's path: ``numpy.fft.tests.test_helper::TestFFTShift::test_definition``.
"""

import json
import os

_DETAIL_MAX = 4000
_WORST = {"passed": 0, "skipped": 1, "failed": 2}
# Before pytest captures what tests write.
_OUTPUT = os.dup(1)
_outcomes = {}


def pytest_addoption(parser):
    parser.addoption("--excluded", action="append", default=[], help="the id of a test that is not to be run")


def pytest_collection_modifyitems(config, items):
    excluded = set(config.getoption("--excluded"))
    items[:] = [item for item in items if _name(item.nodeid) not in excluded]


def pytest_collection_finish(session):
    # pandas' --no-strict-data-files, which is not known yet when the command line is read: the wheel comes without the
    # data of the tests, and those that want it are then skipped.
    session.config.option.strict_data_files = False


def pytest_runtest_logreport(report):
    name = _name(report.nodeid)
    known, _ = _outcomes.get(name, ("passed", ""))
    if _WORST[report.outcome] >= _WORST[known]:
        _outcomes[name] = (report.outcome, _detail(report))
    if report.when == "teardown":
        _write(*_outcomes.pop(name), name=name)


def pytest_collectreport(report):
    if report.outcome != "passed":
        _write(report.outcome, _detail(report), name=_name(report.nodeid))


def pytest_sessionfinish(session):
    _write("end", "", name=str(session.testscollected))


def _name(nodeid):
    path, separator, test = nodeid.partition("::")
    module = path.rpartition("site-packages/")[2].rpartition("site/")[2].removesuffix(".py").replace("/", ".")
    return f"{module}{separator}{test}"


def _detail(report):
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        return report.longrepr[2]
    return report.longreprtext if report.longrepr else getattr(report, "wasxfail", "")


def _write(status, detail, name):
    line = b"\n\x1f" + json.dumps([status, name, detail[-_DETAIL_MAX:]]).encode() + b"\n"
    while line:
        line = line[os.write(_OUTPUT, line) :]
