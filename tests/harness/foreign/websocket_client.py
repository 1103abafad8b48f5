"""A WebSocket conversation over HTTP/1.1: websocket_client.py URL ADDRESS:PORT [AUTHORITY.pem]."""

import asyncio
import ssl
import sys

import websockets

PATIENCE = 30


async def talk(url, address, authority=None):
    host, port = address.rsplit(":", 1)
    context = ssl.create_default_context(cafile=authority) if authority else None
    options = {"host": host, "port": int(port), "ssl": context, "max_size": None, "proxy": None}
    async with websockets.connect(url, subprotocols=["chat.v1"], **options) as socket:
        assert socket.subprotocol == "chat.v1", socket.subprotocol
        for message in ["hello", "", "\u00e9\u4e16", b"\x00\xff", "x" * 70_000, bytes(300_000)]:
            await socket.send(message)
            answer = await asyncio.wait_for(socket.recv(), PATIENCE)
            assert answer == message, f"sent {message[:20]!r}, got {answer[:20]!r}"
        await socket.send(["frag", "men", "ted"])
        answer = await asyncio.wait_for(socket.recv(), PATIENCE)
        assert answer == "fragmented", answer
        await asyncio.wait_for(await socket.ping(b"are you there"), PATIENCE)
        await socket.close(4001, "that is all")
    assert (socket.close_code, socket.close_reason) == (4001, "that is all"), (socket.close_code, socket.close_reason)


asyncio.run(talk(*sys.argv[1:]))
print("conversation ended as agreed")
