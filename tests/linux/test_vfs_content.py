"""The bytes of a regular file."""

from errno import EEXIST, ENOSPC, ENOTDIR

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvmm.linux.errors import GuestError
from pyvmm.linux.vfs.content import CHUNK, Content
from pyvmm.linux.vfs.quota import Quota
from tests.linux.vfs_guest import AT_FDCWD, Guest

O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_DIRECTORY = 1, 2, 0o100, 0o1000, 0o200000


@pytest.fixture
def guest() -> Guest:
    return Guest()


OPERATIONS = st.one_of(
    st.tuples(
        st.just("write"), st.integers(0, 3 * CHUNK), st.sampled_from((0, 1, 7, 4096, CHUNK - 1, CHUNK, CHUNK + 5))
    ),
    st.tuples(st.just("truncate"), st.integers(0, 3 * CHUNK), st.just(0)),
    st.tuples(st.just("punch"), st.integers(0, 3 * CHUNK), st.sampled_from((1, 4096, CHUNK, 2 * CHUNK))),
    st.tuples(st.just("allocate"), st.integers(0, 3 * CHUNK), st.sampled_from((1, 4096, CHUNK))),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(OPERATIONS, max_size=12), st.sampled_from((0, 5, CHUNK, 2 * CHUNK + 100)))
def test_content_behaves_as_an_array_of_bytes(operations: list[tuple[str, int, int]], base_size: int) -> None:
    base = bytes(number % 251 for number in range(base_size))
    quota = Quota(1 << 30, 10)
    content = Content(quota, base_size, lambda offset, count: base[offset : offset + count], base_size)
    model = bytearray(base)
    for number, (name, offset, count) in enumerate(operations, 1):
        if name == "write":
            data = bytes((number,)) * count
            assert content.write(offset, data) == count if count else True
            if count:
                model.extend(bytes(max(offset + count - len(model), 0)))
                model[offset : offset + count] = data
        elif name == "truncate":
            content.truncate(offset)
            model[offset:] = bytes(max(offset - len(model), 0))
        elif name == "punch" and offset < len(model):
            content.punch(offset, count)
            end = min(offset + count, len(model))
            model[offset:end] = bytes(end - offset)
        elif name == "allocate":
            content.allocate(offset, count)
    assert content.size == len(model)
    assert content.read(0, len(model) + 10) == model
    assert content.read(1000, 70_000) == model[1000:71_000]
    assert content.charged == quota.bytes_used >= 0
    _check_holes(content, model)
    content.clear()
    assert quota.bytes_used == 0


def _check_holes(content: Content, model: bytearray) -> None:
    """Data and holes alternate to the end, and holes are zeros."""
    at = 0
    while at < content.size:
        data = content.seek_data(at)
        end = content.size if data is None else min(data, content.size)
        assert not any(model[at:end])
        if data is None or data >= content.size:
            return
        at = content.seek_hole(data)
        assert at > data


def test_a_write_over_the_quota_keeps_what_fitted() -> None:
    content = Content(Quota(2 * CHUNK, 1))
    assert content.write(0, bytes(3 * CHUNK)) == 2 * CHUNK
    with pytest.raises(GuestError) as caught:
        content.write(2 * CHUNK, b"x")
    assert caught.value.errno == ENOSPC


def test_what_is_no_directory_is_not_walked_through(guest: Guest) -> None:
    assert guest.open(b"/etc/passwd/x") == -ENOTDIR
    assert guest.call("mkdirat", AT_FDCWD, b"/etc/passwd/x", 0o755) == -ENOTDIR
    assert guest.call("mkdir", b"/proc/self/fd/0/x", 0o755) == -ENOTDIR
    assert guest.call("mkdir", b"/tmp", 0o755) == -EEXIST
