"""Connects again and again and closes at a moment of chance.

closer.py PORT COUNT

On each connection it sends its descriptor and its socket cookie, and, just before it closes, the time (CLOCK_MONOTONIC).
"""

import random
import socket
import struct
import sys
import time

SO_COOKIE = 57

port, count = map(int, sys.argv[1:])
for _ in range(count):
    connection = socket.create_connection(("127.0.0.1", port))
    cookie, = struct.unpack("Q", connection.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))
    connection.sendall(struct.pack("QQ", connection.fileno(), cookie))
    until = time.monotonic_ns() + random.randrange(500_000)
    while time.monotonic_ns() < until:
        pass
    connection.send(struct.pack("Q", time.monotonic_ns()))
    connection.close()
