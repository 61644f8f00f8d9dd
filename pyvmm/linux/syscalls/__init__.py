"""The system calls, by families of section 2 of the manual. Importing this package fills
:data:`pyvmm.linux.table.TABLE`.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
