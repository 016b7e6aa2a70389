"""A WSGI application that connects while uWSGI's master loads it: the workers inherit the socket, and the master keeps it.

DATABASE_DSN    libpq connection string
"""

import json
import os

import psycopg2

CONNECTION = psycopg2.connect(os.environ["DATABASE_DSN"], keepalives=0)
CONNECTION.autocommit = True


def application(_, start_response):
    status, answer = "200 OK", {"pid": os.getpid()}
    try:
        with CONNECTION.cursor() as cursor:
            cursor.execute("SELECT 1")
    except psycopg2.Error as error:
        status = "503 Service Unavailable"
        answer["error"] = str(error).strip()
    body = json.dumps(answer).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
