"""Short connections, several at the same time.

short.py HOST:PORT TOGETHER ROUNDS

One connection is kept. ROUNDS times it makes TOGETHER more, holds them for 0.3 s and closes them. Prints "refused N" for those that were
refused, reset or not answered within 3 s.
"""

import socket
import sys
import time

address, together, rounds = sys.argv[1:]
host, port = address.rsplit(":", 1)
refused = 0
kept = socket.create_connection((host, int(port)), timeout=3)
for _ in range(int(rounds)):
    held = []
    for _ in range(int(together)):
        try:
            held.append(socket.create_connection((host, int(port)), timeout=3))
        except OSError as error:
            print(f"{error}")
            refused += 1
    time.sleep(0.3)
    for connection in held:
        connection.close()
    time.sleep(0.7)
print(f"refused {refused}")
time.sleep(600)
