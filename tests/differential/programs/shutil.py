# ruff: noqa
from common import os

import shutil, pathlib

p = pathlib.Path("s")
p.mkdir()
(p / "f").write_text("x" * 100000)
(p / "l").symlink_to("f")
shutil.copytree("s", "d", symlinks=True)
print(
    sorted((x.name for x in pathlib.Path("d").iterdir())),
    (pathlib.Path("d") / "l").is_symlink(),
    shutil.copyfile("s/f", "g"),
    os.path.getsize("g"),
)
shutil.move("g", "d/h")
shutil.rmtree("s")
print(sorted(os.listdir()), sorted(os.listdir("d")), sorted((str(x) for x in pathlib.Path(".").glob("*/*"))))
