"""What the fuzzer has found worth keeping is played again: none of it may be an error of the monitor."""

import json
import logging

import pytest

from tests.fuzz.__main__ import CORPUS, _Errors, play

pytestmark = pytest.mark.kvm

_RECORDS = sorted(CORPUS.glob("*.json"))


@pytest.mark.parametrize("part", range(4))
def test_records_of_the_corpus_end_only_their_guest(template, part):
    errors = _Errors()
    logging.getLogger().addHandler(errors)
    try:
        played = {path.name: play(template, json.loads(path.read_text()), errors) for path in _RECORDS[part::4]}
    finally:
        logging.getLogger().removeHandler(errors)
    assert not {name: wrong for name, wrong in played.items() if wrong}


def test_there_is_a_corpus():
    assert len(_RECORDS) > 50
