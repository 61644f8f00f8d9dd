"""Measurements of pyvmm, each beside its floor, taken in the same run.

::

    floor.c  floor.py    the same system calls from C: what the kernel takes, and no VMM can give back
    rivals.py            warm.py (an interpreter as warm as the template, forked by os.fork) and a cold python3
    conditions.py        what the numbers depend on: the host, its memory, this process's descriptors and mappings
    test_*.py            the cases, for pytest-benchmark; rivals run between the rounds, so that noise hits all alike
    report.py            p50, p99, ratios and the bars, as a table and as JSON

``make bench``, or ``python -m bench --help``. No test fails because something was slow: the table says what was missed.
"""
