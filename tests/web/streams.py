"""Reads a stream with a ready-made client of Python's, for streams.mjs.

streams.py sse|ws URL: prints each event as a line of JSON, the object and the cursor that it came
with, and at last how the stream ended. What comes on stdin, line by line, is said on a WebSocket.
"""

import json
import sys
import threading
import urllib.request

import sseclient
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


def tell(**what):
    print(json.dumps(what), flush=True)


def sse(url):
    request = urllib.request.Request(url, headers={"Accept": "text/event-stream"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request) as stream:
        for event in sseclient.SSEClient(stream).events():
            tell(object=json.loads(event.data), cursor=event.id, type=event.event)
    tell(end="regular")


def ws(url):
    with connect(url.replace("http", "ws", 1), proxy=None) as socket:
        said = (line.rstrip("\n") for line in sys.stdin)
        threading.Thread(target=lambda: [socket.send(text) for text in said], daemon=True).start()
        try:
            while True:
                message = json.loads(socket.recv())
                tell(object=message, cursor=message.pop("cursor", None))
        except ConnectionClosed as closed:
            tell(end=closed.rcvd.code if closed.rcvd else None)


{"sse": sse, "ws": ws}[sys.argv[1]](sys.argv[2])
