"""The application of the mirror list: asks the server behind the Unix socket that stands beside it."""
import os
import socket


def application(environ, start_response):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.path.join(os.path.dirname(__file__), "mirror.sock"))
        connection.sendall(b"list\n")
        body = connection.makefile("rb").read()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
