"""A server on a Unix socket that forks for each connection: forking.py PATH BACKLOG reap|forget."""
import os
import signal
import socketserver
import sys


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.readline()
        self.wfile.write(b"mirror\n")


class Server(socketserver.UnixStreamServer):
    def process_request(self, request, client_address):
        if os.fork() == 0:
            self.finish_request(request, client_address)
            self.shutdown_request(request)
            os._exit(0)
        self.close_request(request)


path, backlog, children = sys.argv[1:]
Server.request_queue_size = int(backlog)
if children == "reap":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
server = Server(path, Handler)
os.chmod(path, 0o777)
print("listening", flush=True)
server.serve_forever()
