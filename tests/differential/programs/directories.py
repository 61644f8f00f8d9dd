# ruff: noqa
from common import fails, os

os.makedirs("x/y/z")
os.mkdir("e")
print(
    sorted(os.listdir("x")),
    fails(os.mkdir, "e"),
    fails(os.rmdir, "x"),
    fails(os.rmdir, "none"),
    fails(os.mkdir, "no/such"),
)
os.chdir("x/y")
print(
    os.getcwd().endswith("/x/y"),
    os.listdir(".."),
    os.path.samefile("../..", os.path.dirname(os.path.dirname(os.getcwd()))),
)
os.chdir("../..")
os.rename("x/y", "moved")
print(sorted(os.listdir()), os.listdir("moved"))
print(
    fails(os.rename, "moved", "moved/z/inner"),
    fails(os.rename, "e", "moved"),
    fails(os.unlink, "e"),
    fails(os.listdir, "none"),
)
print(os.stat("moved").st_nlink, [(r, sorted(d), f) for r, d, f in sorted(os.walk(".")) if "main" not in str(f)])
with os.scandir(".") as it:
    print(sorted(((e.name, e.is_dir(), e.is_file(), e.is_symlink()) for e in it)))
