"""A local user who may use the control socket and means ill: hostile.py SOCKET SECONDS.

Garbage, questions without an end, answers that are not read, connections by the thousand. Prints how many there were.
"""

import os
import random
import socket
import sys
import time

path, seconds = sys.argv[1], float(sys.argv[2])
held, count, until = [], 0, time.monotonic() + seconds
while time.monotonic() < until:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.setblocking(False)
    try:
        client.connect(path)
        count += 1
        client.send(random.choice([b"status\n", b"status\n" * 500, os.urandom(4096), b"x" * 9000, b"incidents 10000\n", b"incidents -1\n", b"\n", b"pi"]))
    except BlockingIOError:
        time.sleep(0.001)
    except OSError:
        pass
    held.append(client)
    if len(held) > 500:
        held.pop(random.randrange(len(held))).close()
print(f"{count} connections")
