"""A server with so many threads, each of which has one connection at a time; what is beyond them is accepted by the kernel and hangs.

threads.py PORT THREADS

Everything that comes is sent back.
"""

import socket
import sys
import threading

port, count = map(int, sys.argv[1:])
listener = socket.create_server(("0.0.0.0", port), backlog=100)


def serve():
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                while data := connection.recv(4096):
                    connection.sendall(data)
            except OSError:
                pass


for _ in range(count):
    threading.Thread(target=serve).start()
print("listening")
