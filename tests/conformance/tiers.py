"""Which modules of CPython's suite are run, in the order of what they ask of a kernel."""

_MODULES = {
    "A": """
    dict list set int long float complex math cmath fractions datetime time strptime collections defaultdict heapq
    bisect array memoryview copy hmac binascii zlib lzma csv configparser string textwrap pprint memoryio fileio file
    mmap contextlib dataclasses typing ast grammar descr generators email xml_etree xml_etree_c pyexpat sax codecs
    argparse urlparse tomllib operator types enumerate patma exception_group except_star syntax glob fnmatch linecache
    dbm_dumb resource secrets locale gettext html htmlparser http_cookies shlex
    """,
    "B": """
    threading_local thread queue functools itertools enum pickle hashlib decimal asyncgen contextlib_async select
    """,
    "C": """
    io json re random bytes gzip bz2 tempfile traceback exceptions builtin gc weakref tracemalloc faulthandler signal
    fork1 pty coroutines unittest import importlib sqlite3 ctypes
    """,
    "D": "os pathlib shutil subprocess selectors uuid urllib posixpath stat",
    "E": """
    atexit audit buffer c_locale_coercion cmd_line cmd_line_script compile compileall dbm eintr epoll
    exception_variations fcntl file_eintr filecmp fileinput grp inspect ioctl largefile logging mailbox marshal
    multiprocessing_main_handling openpty pdb platform poll popen posix pwd py_compile runpy sched shelve site struct
    sys sysconfig syslog threading threadsignals tty unicode_file_functions utf8_mode wait3 wait4 zipfile zipimport
    zoneinfo
    """,
}
TIERS = {tier: tuple(names.split()) for tier, names in _MODULES.items()}
TITLES = {
    "A": "language and pure library",
    "B": "threads and timers",
    "C": "fork and exec, signals, I/O",
    "D": "the operating system's surface",
    "E": "others that ask something of a kernel",
}


def full_name(module: str) -> str:
    """The name to import a module by: ``dict`` to ``test.test_dict``."""
    return f"test.test_{module}"


def tier_of(module: str) -> str:
    """The tier that names a module; the last one has those that none names."""
    return next((tier for tier, modules in TIERS.items() if module in modules), "E")
