# ruff: noqa
import csv, io, xml.etree.ElementTree as E, configparser, html

s = io.StringIO()
csv.writer(s).writerows([["a,b", 'c"d'], [1, "ä"]])
print(
    repr(s.getvalue()),
    list(csv.reader(['"x""y",z'])),
    E.tostring(E.fromstring('<a b="1"><c>t</c></a>')),
    html.escape("<&>"),
)
c = configparser.ConfigParser()
c.read_string("[s]\nk = %(x)s\nx = 1")
print(c["s"]["k"])
