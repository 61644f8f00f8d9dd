# ruff: noqa
def g():
    try:
        x = yield 1
        print("got", x)
        yield from range(2)
    finally:
        print("end")


i = g()
print(next(i), i.send("s"), list(i))
import asyncio, contextlib


async def main():

    async def w(n):
        await asyncio.sleep(0)
        return n

    return sum([await w(i) for i in range(5)])


print(__import__("functools").reduce(lambda a, b: a * b, range(1, 20)))
