"""A local user without rights who does what he can to hold the agent up.

    siege.py hoard PROCESSES DESCRIPTORS   holds that many descriptors in each of so many processes
    siege.py namespaces COUNT              makes network namespaces with a listening socket in each
    siege.py http HOST PORT COUNT          keeps connections to the endpoint, each with one request behind it
    siege.py churn HOST PORT SECONDS       new connections to the back-end, ten a second, whose owner is to be found
    siege.py haproxy SOCKET                a stats socket with thousands of new names in every answer

Prints "ready" and goes on until it is killed.
"""

import ctypes
import os
import resource
import socket
import sys
import time

kept = []


def forever():
    print("ready", flush=True)
    while True:
        time.sleep(60)


def children(count, work):
    """Runs work in so many children, and waits until it is done; they end with this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    for _ in range(count):
        read, write = os.pipe()
        if os.fork() == 0:
            libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG
            work(libc)
            os.write(write, b"x")
            while True:
                time.sleep(60)
        os.close(write)
        if os.read(read, 1) != b"x":
            sys.exit("a child failed")
        os.close(read)


def hoard(processes, descriptors):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def hold(_):
        null = os.open("/dev/null", os.O_RDONLY)
        for _ in range(min(descriptors, hard - 16)):
            os.dup(null)

    children(processes, hold)
    forever()


def namespaces(count):
    def enter(libc):
        if libc.unshare(0x50000000) != 0:  # CLONE_NEWUSER | CLONE_NEWNET
            os._exit(1)
        kept.append(socket.create_server(("0.0.0.0", 5432)))

    children(count, enter)
    forever()


def http(host, port, count):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for number in range(count):
        client = socket.create_connection((host, port))
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.recv(4096)
        kept.append(client)
    forever()


def churn(host, port, seconds):
    print("ready", flush=True)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            kept.append(socket.create_connection((host, port), timeout=1))
        except OSError:
            pass
        if len(kept) > 20:
            kept.pop(0).close()
        time.sleep(0.1)


def haproxy(path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    os.chmod(path, 0o777)
    server.listen()
    print("ready", flush=True)
    number = 0
    while True:
        client, _ = server.accept()
        try:
            client.recv(4096)
            rows = ["Name: HAProxy\nVersion: 2.6.12\nMaxconn: 2000\nCurrConns: 40\n\n# pxname,svname,qcur,qmax,scur,smax,slim,stot,chkdown,econ,hrsp_5xx,status,type,"]
            for _ in range(9500):
                number += 1
                rows.append(f"b{number},web1,3,9,10,10,10,400,1,2,5,DOWN,2,\nb{number},BACKEND,4,9,10,20,200,700,1,2,20,UP,1,")
            client.sendall("\n".join(rows).encode())
        except OSError:
            pass
        client.close()


words = sys.argv[2:]
match sys.argv[1]:
    case "hoard":
        hoard(int(words[0]), int(words[1]))
    case "namespaces":
        namespaces(int(words[0]))
    case "http":
        http(words[0], int(words[1]), int(words[2]))
    case "churn":
        churn(words[0], int(words[1]), float(words[2]))
    case "haproxy":
        haproxy(words[0])
