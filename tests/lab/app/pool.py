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


def work(number):
    signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
    connection = psycopg2.connect(dsn, keepalives=0)
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    print(f"worker {number} {os.getpid()} is connected", flush=True)
    while not asked:
        time.sleep(0.05)
    time.sleep(number / 2)
    print(f"worker {number} asks", flush=True)
    try:
        cursor.execute("SELECT 1")
        print(f"worker {number} answered", flush=True)
    except psycopg2.Error as error:
        print(f"worker {number} {type(error).__name__}", flush=True)
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
