# ruff: noqa
import time, datetime

print(
    time.tzname,
    time.timezone,
    time.localtime(0)[:6],
    time.strftime("%a %d %b %Y %H:%M:%S %Z", time.gmtime(1000000000.0)),
    time.mktime((2024, 2, 29, 12, 0, 0, 0, 0, 0)),
)
print(
    datetime.datetime.fromtimestamp(1500000000.0),
    datetime.date(2024, 2, 29) + datetime.timedelta(365),
    datetime.datetime(2024, 1, 1).isocalendar(),
    datetime.datetime.max.isoformat(),
)
