"""The file systems of a sandbox."""

from pyvmm.linux.vfs.context import FsContext
from pyvmm.linux.vfs.inode import FileSystem, Inode
from pyvmm.linux.vfs.vfs import Vfs

__all__ = ["FileSystem", "FsContext", "Inode", "Vfs"]
