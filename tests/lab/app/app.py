"""An ordinary WSGI application in front of PostgreSQL, as the lab's uWSGI workers run it.

Each worker process has a connection pool that keeps its connections open. All workers share one lock around the
client library: a flock on a file, which the kernel releases when its holder dies. TCP keepalives are off unless
KEEPALIVES_IDLE is set. Nothing here knows of conn-sidecar.

DATABASE_DSN      libpq connection string
LIBRARY_LOCK      path of the file that is the shared lock
KEEPALIVES_IDLE   seconds; empty: keepalives off
"""

import contextlib
import fcntl
import json
import os
import sys
import time
import urllib.parse

import psycopg2
import psycopg2.pool
import uwsgi

POOL = None


def keepalives():
    idle = os.environ.get("KEEPALIVES_IDLE", "")
    if not idle:
        return {"keepalives": 0}
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


ENDPOINTS = {"/query": query, "/sleep": sleep, "/download": download, "/upload": upload}


def application(environ, start_response):
    started = time.monotonic()
    status = "200 OK"
    answer = {"worker": uwsgi.worker_id(), "pid": os.getpid()}
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
