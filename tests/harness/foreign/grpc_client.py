"""Makes every kind of gRPC call and checks the answers: grpc_client.py ADDRESS [AUTHORITY.pem SERVER_NAME]."""

import queue
import sys

import grpc

PATIENCE = 30


def channel(address, authority=None, name=None):
    if authority is None:
        return grpc.insecure_channel(address)
    with open(authority, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    options = (("grpc.ssl_target_name_override", name), ("grpc.default_authority", name))
    return grpc.secure_channel(address, credentials, options)


def check(what, got, expected):
    if got != expected:
        sys.exit(f"{what}: got {got!r}, expected {expected!r}")
    print(f"ok {what}")


def dialogue(call):
    """The next message is sent only after the answer to the one before has come: a buffering proxy would block."""
    outgoing = queue.Queue()
    answers = call(iter(outgoing.get, None), timeout=PATIENCE)
    got = []
    for i in range(10):
        outgoing.put(b"%d" % i)
        got.append(next(answers))
    outgoing.put(None)
    return got + list(answers)


def failure(call):
    got = []
    try:
        answer = call()
        got.extend([answer] if isinstance(answer, bytes) else answer)
    except grpc.RpcError as error:
        return error
    sys.exit(f"a failing call succeeded: {got!r}")


with channel(*sys.argv[1:]) as line:
    answer, call = line.unary_unary("/test.Echo/Unary").with_call(b"hi", timeout=PATIENCE)
    check("unary", answer, b"unary:hi")
    check("initial metadata", dict(call.initial_metadata()).get("x-initial"), "first")
    check("trailing metadata", dict(call.trailing_metadata()).get("x-trailing"), "last")
    check("binary metadata", dict(call.trailing_metadata()).get("x-bytes-bin"), b"\x00\xff\x7f")
    large = bytes(range(256)) * 8192
    check("large unary", line.unary_unary("/test.Echo/Unary")(large, timeout=PATIENCE), b"unary:" + large)
    stream = line.unary_stream("/test.Echo/ServerStream")(b"s", timeout=PATIENCE)
    check("server stream", list(stream), [b"%d:s" % i for i in range(5)])
    upload = line.stream_unary("/test.Echo/ClientStream")
    check("client stream", upload(iter([b"a", b"b", b"c"]), timeout=PATIENCE), b"a+b+c")
    many = [b"m%d" % i for i in range(5000)]
    check("many small messages up", upload(iter(many), timeout=PATIENCE), b"+".join(many))
    crowd = list(line.stream_stream("/test.Echo/Both")(iter(many), timeout=PATIENCE))
    check("many small messages both ways", crowd, [b"echo:" + message for message in many])
    check("both ways", dialogue(line.stream_stream("/test.Echo/Both")), [b"echo:%d" % i for i in range(10)])
    error = failure(lambda: line.unary_unary("/test.Echo/Fail")(b"", timeout=PATIENCE))
    check("status", error.code(), grpc.StatusCode.NOT_FOUND)
    check("message", error.details(), "nothing here: 100 % sure, \u00e9")
    check("error metadata", dict(error.trailing_metadata()).get("x-reason"), "because")
    error = failure(lambda: list(line.unary_stream("/test.Echo/FailLate")(b"", timeout=PATIENCE)))
    check("late status", error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
    error = failure(lambda: line.unary_unary("/test.Echo/Nothing")(b"", timeout=PATIENCE))
    check("unknown method", error.code(), grpc.StatusCode.UNIMPLEMENTED)
    given = (("x-key", "value"), ("x-blob-bin", b"\x01\x02"))
    seen = line.unary_unary("/test.Echo/Metadata")(b"", metadata=given, timeout=PATIENCE).decode()
    check("request metadata", [repr(pair) in seen for pair in given], [True, True])
print("all calls answered")
