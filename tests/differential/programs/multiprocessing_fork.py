import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

context = multiprocessing.get_context("fork")


def square(number):
    return number * number


def fail(number):
    raise ValueError(number)


with context.Pool(3) as pool:
    print(pool.map(square, range(20)))
    try:
        pool.apply(fail, (3,))
    except ValueError as error:
        print("failed", error)
queue, value, array = context.Queue(), context.Value("i", 0), context.Array("d", 3)


def add(times):
    for _ in range(times):
        with value.get_lock():
            value.value += 1
    array[1] = 2.5
    queue.put(os.getpid() != parent)


parent = os.getpid()
processes = [context.Process(target=add, args=(100,)) for _ in range(3)]
for process in processes:
    process.start()
print([queue.get() for _ in processes])
for process in processes:
    process.join()
print(value.value, list(array), [process.exitcode for process in processes])
here, there = context.Pipe()
process = context.Process(target=lambda: there.send({"a": [1, 2]}))
process.start()
print(here.recv())
process.join()
with ProcessPoolExecutor(2, mp_context=context) as pool:
    print(list(pool.map(square, range(5))))
with context.Pool(1) as pool:
    print(pool.apply_async(square, (7,)).get(60))
