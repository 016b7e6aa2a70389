"""A server of the old school: it forks a child for each connection of a Unix socket, and never waits for one.

forker.py SOCKET BACKLOG SECONDS: each child works so many seconds and answers with one line; at most four work at once.
"""
import os
import signal
import socket
import sys
import time

path, backlog, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server.bind(path)
os.chmod(path, 0o666)
server.listen(backlog)
done_read, done_write = os.pipe()
os.write(done_write, b"....")
print("listening", flush=True)
while True:
    os.read(done_read, 1)  # one of the four places
    connection, _ = server.accept()
    if os.fork() == 0:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        connection.recv(100)
        time.sleep(seconds)
        try:
            connection.sendall(b"done by %d\n" % os.getpid())
        except OSError:
            pass
        os.write(done_write, b".")
        os._exit(0)
    connection.close()
