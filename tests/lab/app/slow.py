"""An application that takes its time: /?seconds=N is silent for so long before it answers."""
import time
from urllib.parse import parse_qs


def application(environ, start_response):
    query = parse_qs(environ.get("QUERY_STRING", ""))
    time.sleep(float(query.get("seconds", ["0"])[0]))
    body = b"done\n" * 20000
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
