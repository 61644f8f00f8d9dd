# ruff: noqa
import hashlib, hmac, zlib, binascii

print(
    [hashlib.new(n, b"x").hexdigest()[:12] for n in ("md5", "sha1", "sha256", "sha512", "sha3_256", "blake2b")],
    hmac.new(b"k", b"m", "sha256").hexdigest()[:12],
    zlib.crc32(b"abc"),
    zlib.adler32(b"abc"),
    hashlib.pbkdf2_hmac("sha256", b"p", b"s", 100).hex()[:12],
)
