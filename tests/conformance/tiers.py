"""Which modules are run: of CPython's suite in the order of what they ask of a kernel, and of numpy and pandas."""

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
    asyncio atexit audit buffer c_locale_coercion cmd_line cmd_line_script compile compileall dbm eintr epoll
    exception_variations fcntl file_eintr filecmp fileinput grp inspect ioctl largefile logging mailbox marshal
    multiprocessing_fork multiprocessing_main_handling openpty pdb platform poll popen posix pwd py_compile runpy sched
    shelve site socket socketserver ssl struct sys sysconfig syslog tarfile threading threadsignals tty
    unicode_file_functions utf8_mode wait3 wait4 zipfile zipimport zoneinfo
    """,
}
TIERS = {tier: tuple(names.split()) for tier, names in _MODULES.items()}
_PACKAGE_MODULES = {
    "N": """
    numpy._core.tests: test_umath test_umath_complex test_multiarray test_dtype test_numeric test_numerictypes
    test_ufunc test_indexing test_records test_memmap test_regression test_scalarmath test_shape_base test_einsum
    test_datetime test_errstate test_casting_floatingpoint_errors test_multithreading
    test_multiprocessing test_longdouble test_half test_item_selection test_function_base test_dlpack
    test_stringdtype test_cpu_features
    numpy.lib.tests: test_io test_format test_function_base test_arraysetops test_nanfunctions test_recfunctions
    test_index_tricks test_arraypad test_stride_tricks test_loadtxt test__datasource
    numpy.linalg.tests: test_linalg test_regression
    numpy.random.tests: test_generator_mt19937 test_random test_randomstate test_direct test_smoke test_seed_sequence
    numpy.fft.tests: test_pocketfft test_helper
    """,
    "P": """
    pandas.tests.io.parser: test_read_fwf test_encoding test_compression test_textreader
    test_network test_mangle_dupes test_na_values test_parse_dates test_skiprows test_c_parser_only
    test_concatenate_chunks test_parallel_read
    pandas.tests.io.parser.common: test_common_basic test_chunksize test_file_buffer_url test_read_errors
    pandas.tests.io: test_common test_compression test_pickle test_sql
    pandas.tests.io.json: test_pandas test_ujson
    pandas.tests.groupby: test_groupby test_apply test_grouping test_categorical
    pandas.tests.series: test_constructors test_api test_arithmetic
    pandas.tests.frame: test_constructors test_api test_reductions
    pandas.tests.reshape.merge: test_merge test_join test_merge_asof
    pandas.tests.tseries.offsets: test_offsets test_business_day
    pandas.tests.tslibs: test_timezones test_conversion
    pandas.tests.window: test_rolling
    """,
}


def _package_modules(names: str) -> tuple[str, ...]:
    """Full names out of lists that each begin with a package and a colon."""
    modules: list[str] = []
    package = ""
    for name in names.split():
        if name.endswith(":"):
            package = name.removesuffix(":")
        else:
            modules.append(f"{package}.{name}")
    return tuple(modules)


PACKAGE_TIERS = {tier: _package_modules(names) for tier, names in _PACKAGE_MODULES.items()}
TITLES = {
    "A": "language and pure library",
    "B": "threads and timers",
    "C": "fork and exec, signals, I/O",
    "D": "the operating system's surface",
    "E": "others that ask something of a kernel",
    "N": "numpy",
    "P": "pandas",
}


def full_name(module: str) -> str:
    """The name to import a module by: ``dict`` to ``test.test_dict``."""
    return f"test.test_{module}"


def tier_of(module: str) -> str:
    """The tier that names a module; the last one has those that none names."""
    if "." in module:
        return module[0].upper()
    return next((tier for tier, modules in TIERS.items() if module in modules), "E")
