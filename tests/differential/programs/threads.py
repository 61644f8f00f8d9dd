import queue
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

seen, lock = [], threading.Lock()


def work(number):
    local.value = number
    barrier.wait()
    with lock:
        seen.append((local.value, threading.current_thread().name))


local, barrier = threading.local(), threading.Barrier(5)
threads = [threading.Thread(target=work, args=(n,), name=f"t{n}") for n in range(5)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sorted(seen), threading.active_count(), any(thread.is_alive() for thread in threads))

with ThreadPoolExecutor(4) as pool:
    print(list(pool.map(lambda n: sum(range(n)), range(0, 100_000, 20_000))))
    futures = {pool.submit(pow, 2, n): n for n in range(8)}
    print(sorted((futures[future], future.result()) for future in as_completed(futures)))
    try:
        pool.submit(lambda: 1 / 0).result()
    except ZeroDivisionError as error:
        print("raised", error)

# Two conditions, two waiters each: a wake must reach the right one.
condition_a, condition_b, log = threading.Condition(), threading.Condition(), []


def waiter(condition, name):
    with condition:
        condition.wait()
        with lock:
            log.append(name)


waiters = [
    threading.Thread(target=waiter, args=(condition, name))
    for condition, name in ((condition_a, "a"), (condition_b, "b"))
]
for thread in waiters:
    thread.start()
while len(condition_a._waiters) + len(condition_b._waiters) < 2:
    pass
with condition_b:
    condition_b.notify()
waiters[1].join()
print(log)
with condition_a:
    condition_a.notify()
waiters[0].join()
print(log)

numbers, results = queue.Queue(3), queue.Queue()


def consume():
    while (number := numbers.get()) is not None:
        results.put(number * number)


consumers = [threading.Thread(target=consume) for _ in range(3)]
for thread in consumers:
    thread.start()
for number in range(50):
    numbers.put(number)
for _ in consumers:
    numbers.put(None)
for thread in consumers:
    thread.join()
print(sum(results.get() for _ in range(50)))

event, semaphore = threading.Event(), threading.Semaphore(2)
print(event.wait(0.01), semaphore.acquire(), semaphore.acquire(), semaphore.acquire(timeout=0.01))
timer = threading.Timer(0.01, event.set)
timer.start()
print(event.wait(), lock.acquire(timeout=0.01), lock.acquire(timeout=0.01))


def dies():
    raise ValueError("in a thread")


threading.excepthook = lambda args: print("hook", args.exc_type.__name__, args.exc_value)
thread = threading.Thread(target=dies)
thread.start()
thread.join()
threading.Thread(target=lambda: print("a daemon's last words"), daemon=True).start()
threading.Thread(target=lambda: (event.wait(), print("waited for at the end"))).start()
