"""The WSGI application in front of forker.py: it hands each request on, through the Unix socket beside this file."""
import os
import socket

SOCKET = os.path.join(os.path.dirname(__file__), "forker.sock")


def application(environ, start_response):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as back:
        back.connect(SOCKET)
        back.sendall(b"work\n")
        answer = back.recv(100)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
