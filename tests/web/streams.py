"""Reads a stream with a common Python client, for streams.mjs.

streams.py sse|ws URL: prints each event as a line of JSON with its object and its cursor, and at the
end how the stream ended. Each line of stdin is sent on the WebSocket.
"""

import json
import sys
import threading
import urllib.request

import sseclient
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


def print_line(**fields):
    print(json.dumps(fields), flush=True)


def sse(url):
    request = urllib.request.Request(url, headers={"Accept": "text/event-stream"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request) as stream:
        for event in sseclient.SSEClient(stream).events():
            print_line(object=json.loads(event.data), cursor=event.id, type=event.event)
    print_line(end="regular")


def ws(url):
    with connect(url.replace("http", "ws", 1), proxy=None) as socket:
        texts = (line.rstrip("\n") for line in sys.stdin)
        threading.Thread(target=lambda: [socket.send(text) for text in texts], daemon=True).start()
        try:
            while True:
                message = json.loads(socket.recv())
                print_line(object=message, cursor=message.pop("cursor", None))
        except ConnectionClosed as closed:
            print_line(end=closed.rcvd.code if closed.rcvd else None)


{"sse": sse, "ws": ws}[sys.argv[1]](sys.argv[2])
