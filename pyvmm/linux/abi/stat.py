"""``asm/stat.h``, ``linux/stat.h``, ``asm-generic/statfs.h``, ``linux/magic.h``: what the system tells about a file."""

import struct

S_IFMT = 0o170000
S_IFSOCK = 0o140000
S_IFLNK = 0o120000
S_IFREG = 0o100000
S_IFBLK = 0o060000
S_IFDIR = 0o040000
S_IFCHR = 0o020000
S_IFIFO = 0o010000
S_ISUID = 0o4000
S_ISGID = 0o2000
S_ISVTX = 0o1000
S_IXGRP = 0o010
S_IALLUGO = 0o7777
S_IRWXUGO = 0o777

#: ``struct stat``: dev, ino, nlink, mode, uid, gid, rdev, size, blksize, blocks, then seconds and nanoseconds of atime,
#: mtime, ctime.
STAT = struct.Struct("<QQQIII4xQqqqqQqQqQ24x")

#: ``struct statx``: mask, blksize, attributes, nlink, uid, gid, mode, ino, size, blocks, attributes_mask, atime, btime,
#: ctime, mtime (each seconds and nanoseconds), rdev major and minor, dev major and minor, mnt_id.
STATX = struct.Struct("<IIQIIIH2xQQQQqI4xqI4xqI4xqI4xIIIIQ104x")

STATX_BASIC_STATS = 0x7FF
STATX_BTIME = 0x800
STATX_MNT_ID = 0x1000
STATX_MNT_ID_UNIQUE = 0x4000
STATX__RESERVED = 0x8000_0000
STATX_ATTR_MOUNT_ROOT = 0x2000

#: ``struct statfs``: type, bsize, blocks, bfree, bavail, files, ffree, fsid (two ints), namelen, frsize, flags.
STATFS = struct.Struct("<qqqqqqqiiqqq32x")

ST_RDONLY, ST_NOSUID, ST_NODEV, ST_NOEXEC, ST_NOATIME, ST_VALID = 1, 2, 4, 8, 1024, 32

OVERLAYFS_SUPER_MAGIC = 0x794C_7630
TMPFS_MAGIC = 0x0102_1994
PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x6265_6572
PIPEFS_MAGIC = 0x5049_5045
SOCKFS_MAGIC = 0x534F_434B
ANON_INODE_FS_MAGIC = 0x0904_1934


def makedev(major: int, minor: int) -> int:
    """``new_encode_dev()``: a device number as ``st_rdev`` has it."""
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def major(device: int) -> int:
    """The major number of an encoded device."""
    return device >> 8 & 0xFFF


def minor(device: int) -> int:
    """The minor number of an encoded device."""
    return device & 0xFF | device >> 12 & 0xFFF00
