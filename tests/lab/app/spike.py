"""So many requests at the same moment, then five a second, and what became of them.

spike.py HOST PORT COUNT SECONDS: prints when the first answer of each status came (Unix time), and the counts when the
seconds are over. COUNT 0 is the ordinary traffic alone.
"""
import asyncio
import collections
import resource
import sys
import time

host, port, count, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 500, count + 500))
seen = collections.Counter()


async def request():
    status = "broken"
    try:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(b"GET / HTTP/1.0\r\nHost: lab\r\n\r\n")
            line = await reader.readline()
            status = line.split()[1].decode() if line else "closed"
        finally:
            writer.close()
    except asyncio.CancelledError:
        status = "unanswered"
        raise
    except OSError:
        pass
    finally:
        seen[status] += 1
        if seen[status] == 1:
            print("first", status, f"{time.time():.3f}", flush=True)


async def main():
    print("begins", f"{time.time():.3f}", flush=True)
    tasks = [asyncio.create_task(request()) for _ in range(count)]
    for _ in range(int(5 * seconds)):
        await asyncio.sleep(0.2)
        tasks.append(asyncio.create_task(request()))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print("ends", *(f"{status}={number}" for status, number in sorted(seen.items())), flush=True)


asyncio.run(main())
