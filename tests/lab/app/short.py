"""Short connections, several at the same time.

short.py HOST:PORT TOGETHER ROUNDS [ask]

One connection is kept. ROUNDS times it makes TOGETHER more, holds them for 0.3 s and closes them. Prints "refused N" for those that were
refused, reset or not answered within 3 s; with "ask" the server must answer on each.
"""

import socket
import sys
import time

address, together, rounds, *ask = sys.argv[1:]
host, port = address.rsplit(":", 1)
refused = 0


def connect():
    connection = socket.create_connection((host, int(port)), timeout=3)
    if ask:
        connection.sendall(b"?")
        if not connection.recv(1):
            raise OSError("closed without an answer")
    return connection


kept = connect()
for _ in range(int(rounds)):
    held = []
    for _ in range(int(together)):
        try:
            held.append(connect())
        except OSError as error:
            print(f"{error}")
            refused += 1
    time.sleep(0.3)
    for connection in held:
        connection.close()
    time.sleep(0.7)
print(f"refused {refused}")
time.sleep(600)
