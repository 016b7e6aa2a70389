"""A process with several database connections, each in a thread of its own.

arms.py DSN ARM...    where an ARM is "busy" (asks twice a second for ever) or a number (asks once when it is connected,
                      then again after that many seconds)

Prints a line for whatever happens to an arm.
"""

import os
import sys
import threading
import time

import psycopg2


def say(line):
    """All of the line in one system call: print makes two, and another thread's line comes between them."""
    os.write(1, f"{line}\n".encode())


def ask(name, connection):
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        say(f"{name} answered")
    except psycopg2.Error as error:
        say(f"{name} {type(error).__name__}: {str(error).splitlines()[0]}")


def arm(name, dsn, kind):
    connection = psycopg2.connect(dsn, keepalives=0)
    connection.autocommit = True
    ask(name, connection)
    if kind == "busy":
        while True:
            time.sleep(0.5)
            ask(name, connection)
    time.sleep(float(kind))
    say(f"{name} asks")
    ask(name, connection)


dsn, *kinds = sys.argv[1:]
threads = [threading.Thread(target=arm, args=(f"arm {i}", dsn, kind)) for i, kind in enumerate(kinds, 1)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
