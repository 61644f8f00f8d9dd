"""Maps folders to import names; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

MAPPED = {"pyvmm.api": "api", "pyvmm.guest": "guest"}


def mapped_packages() -> list[str]:
    """The mapped folders and the packages under them, by the names that they are imported under."""
    names = []
    for name, folder in MAPPED.items():
        names += [name, *(f"{name}.{sub}" for sub in find_packages(folder))]
    return names


setup(packages=find_packages(include=["pyvmm", "pyvmm.*"]) + mapped_packages(), package_dir=MAPPED)
