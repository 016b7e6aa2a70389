"""Processes that stand beside a connection and are not blocked on it: bystander.py KIND DSN.

publish-query   sends on A without reading the answer, then runs a query of 15 s on B
publish-accept  sends on A without reading the answer, then rests in accept()
ask             asks on A
fork            connects, forks, waits for the child, which asks
pool            the same with a ProcessPoolExecutor
broker          connects, passes the descriptor to another process, closes its own copy and rests; the other asks

Each says "ready PID A-PORT" and begins on SIGUSR1, which is sent to the process that was started.
"""

import concurrent.futures
import multiprocessing
import os
import signal
import socket
import struct
import sys
import time

import psycopg2

kind, dsn = sys.argv[1:]
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})


def connect():
    connection = psycopg2.connect(dsn, keepalives=0)
    connection.autocommit = True
    return connection


def say(line):
    os.write(1, f"{line}\n".encode())


def send(descriptor, statement="SELECT 1"):
    """A simple query as it goes over the wire; nobody reads the answer."""
    text = statement.encode() + b"\0"
    os.write(descriptor, b"Q" + struct.pack("!I", len(text) + 4) + text)


def ask(name, connection, statement="SELECT 1"):
    say(f"{name} asks")
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
        say(f"{name} answered")
    except psycopg2.Error as error:
        say(f"{name} failed {str(error).splitlines()[0]}")


def wait():
    signal.sigwait({signal.SIGUSR1})


def ready():
    port = socket.socket(fileno=os.dup(a.fileno())).getsockname()[1]
    say(f"ready {os.getpid()} {port}")


# Before the connection exists, so that the executor's or broker's other process does not inherit it.
if kind == "broker":
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        _, (descriptor,), _, _ = socket.recv_fds(theirs, 1, 1)
        say(f"holder {os.getpid()}")
        theirs.recv(1)
        send(descriptor)
        say("holder asks")
        try:
            os.read(descriptor, 4096)
            say("holder answered")
        except OSError as error:
            say(f"holder failed {error.strerror}")
        time.sleep(3600)
    theirs.close()

a = connect()
b = connect() if kind == "publish-query" else None
ready()
wait()
if kind.startswith("publish"):
    send(a.fileno(), "NOTIFY lab")
    say("published")
    if b:
        ask("B", b, "SELECT pg_sleep(15)")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind("\0" + f"bystander-{os.getpid()}")
    listener.listen()
    listener.accept()
elif kind == "ask":
    ask("A", a)
elif kind == "fork":
    child = os.fork()
    if child == 0:
        ask("child", a)
        time.sleep(3600)
    say(f"child is {child}")
    os.waitpid(child, 0)
elif kind == "pool":
    def task():
        ask("child", a)
        time.sleep(3600)

    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
        executor.submit(task).result()
elif kind == "broker":
    socket.send_fds(ours, [b"x"], [a.fileno()])
    os.close(a.fileno())
    wait()
    ours.send(b"x")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind("\0" + f"bystander-{os.getpid()}")
    listener.listen()
    listener.accept()
say("end")
time.sleep(3600)
