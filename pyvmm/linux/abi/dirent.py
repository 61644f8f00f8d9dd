"""``linux/dirent.h``: the records that getdents(2) writes."""

import struct

DT_UNKNOWN, DT_FIFO, DT_CHR, DT_DIR, DT_BLK, DT_REG, DT_LNK, DT_SOCK = 0, 1, 2, 4, 6, 8, 10, 12

#: ``struct linux_dirent64`` up to its name: d_ino, d_off, d_reclen, d_type.
DIRENT64 = struct.Struct("<QqHB")
#: ``struct linux_dirent`` up to its name: d_ino, d_off, d_reclen; the type is its last byte.
DIRENT = struct.Struct("<QqH")
