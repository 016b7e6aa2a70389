"""A master whose workers are not started again: pool.py DSN WORKERS.

Each worker is a process with one connection. On SIGUSR1 to the master every worker asks, half a second after the one before it.
"""

import os
import signal
import sys
import time

import psycopg2

dsn, count = sys.argv[1], int(sys.argv[2])
asked = []


def say(line):
    """All of the line in one system call: the workers share their output."""
    os.write(1, f"{line}\n".encode())


def work(number):
    signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
    connection = psycopg2.connect(dsn, keepalives=0)
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    say(f"worker {number} {os.getpid()} is connected")
    while not asked:
        time.sleep(0.05)
    time.sleep(number / 2)
    say(f"worker {number} asks")
    try:
        cursor.execute("SELECT 1")
        say(f"worker {number} answered")
    except psycopg2.Error as error:
        say(f"worker {number} {type(error).__name__}")
    signal.pause()


workers = []
for number in range(count):
    pid = os.fork()
    if pid == 0:
        work(number)
    workers.append(pid)
signal.signal(signal.SIGUSR1, lambda *_: [os.kill(pid, signal.SIGUSR1) for pid in workers])
while True:
    signal.pause()
