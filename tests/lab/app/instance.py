"""A single-process application server of the old school: one request at a time, one database connection for all of them.

instance.py PORT DSN: each request computes for 50 ms and asks the database.
"""
import http.server
import sys
import time

import psycopg2

port, dsn = int(sys.argv[1]), sys.argv[2]
database = psycopg2.connect(dsn)
database.autocommit = True


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        until = time.process_time() + 0.05
        while time.process_time() < until:
            pass
        try:
            with database.cursor() as cursor:
                cursor.execute("SELECT 1")
            body, status = b"served by %d\n" % port, 200
        except psycopg2.Error:
            body, status = b"no database\n", 500
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(http.server.HTTPServer):
    request_queue_size = 64


server = Server(("127.0.0.1", port), Handler)
print("listening", flush=True)
server.serve_forever()
