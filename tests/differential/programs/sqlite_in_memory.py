# ruff: noqa
import sqlite3

c = sqlite3.connect(":memory:")
c.execute("create table t(a integer primary key, b text)")
c.executemany("insert into t(b) values (?)", [("x",), ("ä",), (None,)])
print(
    c.execute("select * from t order by b desc").fetchall(),
    c.execute("select sum(a), count(b) from t").fetchone(),
    c.total_changes,
)
try:
    c.execute("select nothing")
except sqlite3.Error as e:
    print(type(e), e)
