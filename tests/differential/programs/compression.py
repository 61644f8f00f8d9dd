# ruff: noqa
import zlib, gzip, bz2, lzma

d = b"abc" * 1000
print(
    [len(m.compress(d)) < 200 for m in (zlib, gzip, bz2, lzma)],
    [m.decompress(m.compress(d)) == d for m in (zlib, gzip, bz2, lzma)],
)
