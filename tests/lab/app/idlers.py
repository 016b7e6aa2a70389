"""Clients that keep a connection each, and use it only now and then.

idlers.py postgresql DSN COUNT PERIODS GAP
idlers.py redis HOST:PORT COUNT PERIODS GAP

All COUNT clients connect, then PERIODS times they rest for GAP seconds and are used at the same time. Prints "connected",
a line for each use that failed, a line for each period, and "done".
"""

import sys
import threading
import time


def postgresql(dsn):
    import psycopg2

    connection = psycopg2.connect(dsn, keepalives=0)
    connection.autocommit = True

    def use():
        # Long enough that all of them are at it together and none shares another one's connection behind a pooler.
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.5)")
            cursor.fetchall()

    return use


def redis(address):
    import redis

    host, port = address.rsplit(":", 1)
    client = redis.Redis(host=host, port=int(port), single_connection_client=True, socket_keepalive=False)
    return lambda: client.incr("uses")


def used(results, number, use):
    started = time.monotonic()
    try:
        use()
        results[number] = time.monotonic() - started
    except Exception as error:
        # One write a line: others fail at the same time.
        sys.stdout.write(f"client {number} failed after {time.monotonic() - started:.3f} s: {type(error).__name__}: {str(error).splitlines()[0]}\n")


def together(uses):
    results = {}
    threads = [threading.Thread(target=used, args=(results, number, use)) for number, use in enumerate(uses, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


kind, address, count, periods, gap = sys.argv[1:]
uses = [{"postgresql": postgresql, "redis": redis}[kind](address) for _ in range(int(count))]
together(uses)
print("connected")
for period in range(1, int(periods) + 1):
    time.sleep(float(gap))
    results = together(uses)
    print(f"period {period}: {len(results)} of {count} served, longest {max(results.values(), default=0):.3f} s")
print("done")
