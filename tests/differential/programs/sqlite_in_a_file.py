# ruff: noqa
from common import os

import sqlite3

with sqlite3.connect("db") as c:
    c.execute("pragma journal_mode=delete")
    c.execute("create table t(a)")
    c.executemany("insert into t values (?)", [(i,) for i in range(1000)])
c.close()
d = sqlite3.connect("db")
print(
    d.execute("select count(*), sum(a) from t").fetchone(),
    sorted(os.listdir()),
    os.path.getsize("db") % 512,
    d.execute("pragma integrity_check").fetchone(),
)
d.execute("begin exclusive")
e = sqlite3.connect("db", timeout=0)
try:
    print(e.execute("select 1").fetchone(), e.execute("insert into t values (1)"))
except sqlite3.OperationalError as x:
    print(x)
