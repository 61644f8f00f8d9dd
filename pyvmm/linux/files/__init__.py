"""Open files, one module for each kind, and the table of descriptors."""

from pyvmm.linux.files.base import OpenFile
from pyvmm.linux.files.table import FdTable

__all__ = ["FdTable", "OpenFile"]
