// An origin on Node's own http module: echoes, digests, trailers, early hints, server-sent events, WebSocket.
import { createHash } from "node:crypto";
import { createServer } from "node:http";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const PIECE = Buffer.alloc(65536, 0x61);
let continues = 0;
let nextEvent = null;

async function body(request) {
  const hash = createHash("sha256");
  let bytes = 0;
  for await (const piece of request) {
    bytes += piece.length;
    hash.update(piece);
  }
  return { bytes, sha256: hash.digest("hex") };
}

function json(response, value) {
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify(value));
}

function facts(request) {
  const { method, url, httpVersion, rawHeaders } = request;
  return { method, url, httpVersion, rawHeaders };
}

async function stream(response, bytes, sized) {
  if (sized) response.setHeader("content-length", bytes);
  for (let left = bytes; left > 0; left -= PIECE.length) {
    const piece = left < PIECE.length ? PIECE.subarray(0, left) : PIECE;
    if (!response.write(piece)) {
      await new Promise((go) => {
        response.once("drain", go);
        response.once("close", go);
      });
      if (response.destroyed) return;
    }
  }
  response.end();
}

const routes = {
  "/hello": (_, response) => response.end("hello from node\n"),
  "/facts": (request, response) => json(response, facts(request)),
  "/upload": async (request, response) => {
    const got = await body(request);
    json(response, { ...got, ...facts(request), rawTrailers: request.rawTrailers, continues });
  },
  "/echo": (request, response) => {
    response.setHeader("content-type", request.headers["content-type"] ?? "application/octet-stream");
    request.pipe(response);
  },
  "/trailers": async (request, response) => {
    await body(request);
    response.setHeader("trailer", "x-checksum");
    response.write("body before trailers\n");
    response.addTrailers({ "x-checksum": "abc123", "x-received": request.rawTrailers.join(",") });
    response.end();
  },
  "/hints": (_, response) => {
    response.writeEarlyHints({ link: "</style.css>; rel=preload; as=style" }, () => response.end("after hints\n"));
  },
  // Each event is sent only when somebody asks for it, so a proxy that buffers makes the reader wait for ever.
  "/events": (_, response) => {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
    let count = 0;
    const emit = () => response.write(`id: ${++count}\ndata: event ${count}\n\n`);
    nextEvent = emit;
    emit();
  },
  "/events/next": async (request, response) => {
    await body(request);
    nextEvent?.();
    response.end();
  },
  "/stream": (request, response, query) =>
    stream(response, Number(query.get("bytes")), query.get("framing") !== "chunked"),
};

const server = createServer({ keepAliveTimeout: 120000, requestTimeout: 0 }, (request, response) => {
  const url = new URL(request.url, "http://origin");
  const route = routes[url.pathname];
  if (!route) {
    response.statusCode = 404;
    return response.end("no such page\n");
  }
  Promise.resolve(route(request, response, url.searchParams)).catch(() => response.destroy());
});
server.on("checkContinue", (request, response) => {
  if (request.headers["x-refuse"]) {
    response.writeHead(417, { connection: "close" });
    return response.end("not wanted\n");
  }
  continues += 1;
  response.writeContinue();
  server.emit("request", request, response);
});

function frame(opcode, payload) {
  const head = [0x80 | opcode];
  if (payload.length < 126) head.push(payload.length);
  else if (payload.length < 65536) head.push(126, payload.length >> 8, payload.length & 255);
  else {
    const length = Buffer.alloc(9, 127);
    length.writeBigUInt64BE(BigInt(payload.length), 1);
    head.push(...length);
  }
  return Buffer.concat([Buffer.from(head), payload]);
}

// One frame from the front of the buffer, or null while it is incomplete.
function take(buffer) {
  if (buffer.length < 2) return null;
  let length = buffer[1] & 127;
  let at = 2;
  if (length === 126) [length, at] = buffer.length < 4 ? [Infinity, 4] : [buffer.readUInt16BE(2), 4];
  else if (length === 127) [length, at] = buffer.length < 10 ? [Infinity, 10] : [Number(buffer.readBigUInt64BE(2)), 10];
  if (buffer.length < at + 4 + length) return null;
  const mask = buffer.subarray(at, at + 4);
  const payload = Buffer.from(buffer.subarray(at + 4, at + 4 + length));
  for (let i = 0; i < payload.length; i++) payload[i] ^= mask[i & 3];
  return { final: buffer[0] >> 7, opcode: buffer[0] & 15, payload, rest: buffer.subarray(at + 4 + length) };
}

server.on("upgrade", (request, socket, head) => {
  socket.on("error", () => socket.destroy());
  if (request.url !== "/ws" || request.headers.upgrade?.toLowerCase() !== "websocket") {
    return socket.end("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
  }
  const accept = createHash("sha1").update(request.headers["sec-websocket-key"] + GUID).digest("base64");
  const offered = request.headers["sec-websocket-protocol"]?.split(",").map((name) => name.trim());
  socket.write(
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
      `Sec-WebSocket-Accept: ${accept}\r\n` +
      (offered ? `Sec-WebSocket-Protocol: ${offered[0]}\r\n` : "") +
      "\r\n",
  );
  let buffer = head;
  let message = [];
  let kind = 0;
  const work = () => {
    for (let got; (got = take(buffer)); buffer = got.rest) {
      if (got.opcode === 8) return socket.end(frame(8, got.payload));
      if (got.opcode === 9) socket.write(frame(10, got.payload));
      if (got.opcode > 2) continue;
      if (got.opcode) kind = got.opcode;
      message.push(got.payload);
      if (got.final) {
        socket.write(frame(kind, Buffer.concat(message)));
        message = [];
      }
    }
  };
  socket.on("data", (piece) => {
    buffer = Buffer.concat([buffer, piece]);
    work();
  });
  work();
});

server.listen(0, "127.0.0.1", () => console.log(`listening ${server.address().port}`));
