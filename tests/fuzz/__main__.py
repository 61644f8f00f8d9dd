"""Run the fuzzer: ``python -m tests.fuzz --help``."""

import argparse
import hashlib
import json
import logging
import random
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from pyvmm import Template
from tests.fuzz.program import GUEST, Record, make_record, mutate

CORPUS = Path(__file__).parent / "corpus"
_PERSONALITY = "/pyvmm/linux/"
#: Seconds: a record makes at most 24 calls, none of which may take longer than its alarm.
_LIMIT = 10.0
_RSS_SLACK = 64 << 20
_NO_END = "it did not end"


class _Errors(logging.Handler):
    """Collects what is logged: a personality that failed says so there."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Coverage:
    """Lines of the personality that have run, by a trace function (slow, and that does not matter here)."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()
        self.new = 0

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if _PERSONALITY not in frame.f_code.co_filename:
            return None
        line = (frame.f_code.co_filename, frame.f_lineno)
        if line not in self.seen:
            self.seen.add(line)
            self.new += 1
        return self._trace

    def __enter__(self) -> "Coverage":
        self.new = 0
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)


def play(template: Template, record: Record, errors: _Errors) -> str:
    """Perform a record in a fork; what is wrong with how it went, or nothing."""
    errors.lines.clear()
    result = template.run(GUEST, argv=[json.dumps(record)], timeout=_LIMIT)
    if errors.lines:
        return errors.lines[0]
    if result.status == "timeout":
        return _NO_END
    if result.status == "protocol_error" or b"internal error" in result.stderr:
        return f"{result.status}: {result.stderr[-500:]!r}"
    return ""


def main() -> int:
    """Fuzz for a while; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the personality with system calls.")
    parser.add_argument("--seconds", type=float, default=60, help="how long (60)")
    parser.add_argument("--seed", type=int, default=time.time_ns() & 0xFFFF_FFFF, help="where chance begins")
    parser.add_argument("--keep", action="store_true", help="write records that reach new lines to corpus/")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    generator = random.Random(options.seed)
    errors = _Errors()
    logging.getLogger().addHandler(errors)
    corpus: list[Record] = [json.loads(path.read_text()) for path in sorted(CORPUS.glob("*.json"))]
    coverage, found, rounds = Coverage(), 0, 0
    end = time.monotonic() + options.seconds
    with Template.load("python") as template:
        queue = list(corpus)
        resident = 0
        while time.monotonic() < end:
            if queue:
                record = queue.pop()
            elif corpus and generator.random() < 0.8:
                record = mutate(generator.choice(corpus), generator.choice(corpus), generator)
            else:
                record = make_record(generator)
            with coverage:
                wrong = play(template, record, errors)
            if wrong == _NO_END:
                wrong = play(template, record, errors)  # the trace function may have taken the time
            rounds += 1
            if rounds == 50:
                resident = psutil.Process().memory_info().rss
            grown = psutil.Process().memory_info().rss - resident if resident else 0
            if grown > _RSS_SLACK:
                wrong, resident = f"resident memory grew by {grown >> 20} MiB", resident + grown
            if wrong:
                found += 1
                print(f"\n{wrong}\n{json.dumps(record)}")
            elif coverage.new and record not in corpus:
                corpus.append(record)
                if options.keep:
                    text = json.dumps(record)
                    (CORPUS / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json").write_text(text + "\n")
            if rounds % 50 == 0:
                print(f"{rounds} records, {len(corpus)} kept, {len(coverage.seen)} lines, {found} findings", flush=True)
    print(f"{rounds} records, {len(corpus)} kept, {len(coverage.seen)} lines, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
