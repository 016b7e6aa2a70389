"""A name server as one hopes never to meet it: dns.py ADDRESS, on 127.0.0.1, UDP and TCP.

plain.test      ADDRESS
many.test       two hundred addresses, ADDRESS last
changing.test   ADDRESS to the first question, and from then on another address each time
empty.test      no address
garbage.test    bytes that are no answer
silent.test     nothing at all

Prints each name that is asked for.
"""

import ipaddress
import os
import socket
import struct
import sys
import threading

ADDRESS = ipaddress.IPv4Address(sys.argv[1]).packed
OTHER = ipaddress.IPv4Address("10.99.0.0")
asked = {}


def addresses(name):
    count = asked[name] = asked.get(name, 0) + 1
    if name == "plain.test":
        return [ADDRESS]
    if name == "many.test":
        return [(OTHER + i).packed for i in range(199)] + [ADDRESS]
    if name == "changing.test":
        return [ADDRESS] if count == 1 else [(OTHER + count % 250).packed]
    return []


def answer(query, limit):
    end = query.index(b"\0", 12)
    name = ".".join(label.decode("ascii", "replace") for label in labels(query[12:end]))
    kind = struct.unpack("!H", query[end + 1:end + 3])[0]
    question = query[12:end + 5]
    sys.stdout.write(f"{name} {kind}\n")  # one write: two threads answer
    if name == "silent.test":
        return None
    if name == "garbage.test":
        return os.urandom(200)
    records = b"".join(struct.pack("!HHHIH", 0xC00C, 1, 1, 0, 4) + a for a in addresses(name)) if kind == 1 else b""
    flags, count = 0x8180, len(records) // 16
    if 12 + len(question) + len(records) > limit:
        flags, count, records = flags | 0x0200, 0, b""
    return query[:2] + struct.pack("!HHHHH", flags, 1, count, 0, 0) + question + records


def labels(data):
    while data:
        yield data[1:1 + data[0]]
        data = data[1 + data[0]:]


def tcp():
    server = socket.create_server(("127.0.0.1", 53))
    while True:
        client, _ = server.accept()
        with client:
            reply = answer(client.recv(4096)[2:], 65000)
            if reply:
                client.sendall(struct.pack("!H", len(reply)) + reply)


threading.Thread(target=tcp, daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 53))
print("serving")
while True:
    query, client = udp.recvfrom(4096)
    reply = answer(query, 512)
    if reply:
        udp.sendto(reply, client)
