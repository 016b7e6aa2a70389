"""Database connections of one process, each with a thread of its own, that say what becomes of each use of them.

users.py DSN COUNT KEEPALIVE rest STATEMENT     rest; on each SIGUSR1 all of them run the statement
users.py DSN COUNT KEEPALIVE busy SECONDS       ask again SECONDS after each answer
users.py DSN COUNT KEEPALIVE listen             wait for a notification that never comes

KEEPALIVE is off, or default as libpq has it: on, with the system's times. Prints "connected", and a line for each use
that is over: NUMBER answered|failed SENT ENDED TEXT, times in seconds on CLOCK_MONOTONIC. Of busy connections only uses
that took longer than half a second are printed; a connection that failed is not used again.
"""

import os
import select
import signal
import sys
import threading
import time

import psycopg2

dsn, count, keepalive, kind, *further = sys.argv[1:]
connected = threading.Barrier(int(count) + 1)
rounds = threading.Semaphore(0)


def say(line):
    os.write(1, f"{line}\n".encode())


def use(number, cursor, action, longer_than=0.0):
    sent = time.monotonic()
    try:
        action()
        outcome, text = "answered", ""
    except (psycopg2.Error, OSError) as error:
        outcome, text = "failed", f"{type(error).__name__}: {' '.join(str(error).split())}"
    ended = time.monotonic()
    if outcome == "failed" or ended - sent > longer_than:
        say(f"{number} {outcome} {sent:.6f} {ended:.6f} {text}")
    return outcome == "answered"


def listen(connection, cursor):
    cursor.execute("LISTEN news")
    while True:
        select.select([connection], [], [])
        connection.poll()


def user(number):
    connection = psycopg2.connect(dsn, **({"keepalives": 0} if keepalive == "off" else {}))
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    connected.wait()
    if kind == "rest":
        rounds.acquire()
        while use(number, cursor, lambda: cursor.execute(further[0])):
            rounds.acquire()
    elif kind == "busy":
        while use(number, cursor, lambda: cursor.execute("SELECT 1"), longer_than=0.5):
            time.sleep(float(further[0]))
    else:
        use(number, cursor, lambda: listen(connection, cursor))


signal.signal(signal.SIGUSR1, lambda *_: rounds.release(int(count)))
for index in range(int(count)):
    threading.Thread(target=user, args=(index + 1,)).start()
connected.wait()
say("connected")
while True:
    signal.pause()
