"""An ordinary WSGI application in front of PostgreSQL, as the lab's uWSGI workers run it.

Each worker process has a connection pool that keeps its connections open. All workers share one lock around the
client library: a flock on a file, which the kernel releases when its holder dies. TCP keepalives are off unless
KEEPALIVES_IDLE is set. Nothing here knows of conn-sidecar. Runs under gunicorn as well.

DATABASE_DSN      libpq connection string
LIBRARY_LOCK      path of the file that is the shared lock
KEEPALIVES_IDLE   seconds; empty: keepalives off; default: as libpq has it (on, with the system's times)
"""

import contextlib
import fcntl
import json
import os
import socket
import sys
import time
import urllib.parse

import psycopg2
import psycopg2.pool

try:
    import uwsgi
except ImportError:
    uwsgi = None

POOL = None
HELD = None


def keepalives():
    idle = os.environ.get("KEEPALIVES_IDLE", "")
    if not idle:
        return {"keepalives": 0}
    if idle == "default":
        return {}
    return {"keepalives": 1, "keepalives_idle": int(idle), "keepalives_interval": 1, "keepalives_count": 5}


@contextlib.contextmanager
def library_lock():
    with open(os.environ["LIBRARY_LOCK"], "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def connection():
    """A connection of this worker's pool; one that failed is dropped, so that the next request makes a new one."""
    global POOL
    if POOL is None:
        POOL = psycopg2.pool.SimpleConnectionPool(1, 4, os.environ["DATABASE_DSN"], **keepalives())
    conn = POOL.getconn()
    conn.autocommit = True
    try:
        yield conn
    except psycopg2.Error:
        POOL.putconn(conn, close=True)
        raise
    except BaseException:
        POOL.putconn(conn)
        raise
    else:
        POOL.putconn(conn)


def run(conn, statement, *parameters):
    with conn.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows = cursor.fetchall()
    return {"backend": conn.info.backend_pid, "rows": len(rows), "value": str(rows[0][0])[:80]}


def query(_):
    with library_lock(), connection() as conn:
        return run(conn, "SELECT 1")


def sleep(arguments):
    with connection() as conn:
        return run(conn, "SELECT pg_sleep(%s)", float(arguments["s"]))


def download(arguments):
    with connection() as conn:
        return run(conn, "SELECT repeat('x', 1000000) FROM generate_series(1, %s)", int(arguments["mb"]))


def upload(arguments):
    with connection() as conn:
        return run(conn, "SELECT length(%s)", "x" * (int(arguments["mb"]) * 1000000))


def hold(arguments):
    """Begins a transaction on a connection of its own, locks a row in it, and leaves it open."""
    global HELD
    HELD = psycopg2.connect(os.environ["DATABASE_DSN"], **keepalives())
    return run(HELD, "UPDATE stock SET amount = amount - 1 WHERE id = %s RETURNING amount", int(arguments["id"]))


def go_on(_):
    """Goes on in the transaction that hold began."""
    return run(HELD, "SELECT count(*) FROM stock")


def options(_):
    """The keepalive options of this worker's pooled connection, as the kernel has them."""
    with connection() as conn, socket.socket(fileno=os.dup(conn.fileno())) as sock:
        tcp = [sock.getsockopt(socket.IPPROTO_TCP, o) for o in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)]
        return {"value": " ".join(str(n) for n in [sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), *tcp])}


ENDPOINTS = {
    "/query": query, "/sleep": sleep, "/download": download, "/upload": upload,
    "/hold": hold, "/go-on": go_on, "/options": options,
}


def application(environ, start_response):
    started = time.monotonic()
    status = "200 OK"
    answer = {"worker": uwsgi.worker_id() if uwsgi else 0, "pid": os.getpid()}
    endpoint = ENDPOINTS.get(environ["PATH_INFO"])
    try:
        if endpoint is None:
            status = "404 Not Found"
        else:
            answer.update(endpoint(dict(urllib.parse.parse_qsl(environ.get("QUERY_STRING", "")))))
    except psycopg2.Error as error:
        status = "503 Service Unavailable"
        answer["error"] = f"{type(error).__name__}: {str(error).strip()}"
        print(f"worker {answer['worker']} pid {answer['pid']}: {answer['error']}", file=sys.stderr, flush=True)
    answer["seconds"] = round(time.monotonic() - started, 4)
    body = json.dumps(answer).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
