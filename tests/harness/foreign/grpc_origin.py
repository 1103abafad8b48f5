"""A gRPC origin with the four kinds of calls and failing ones; messages are plain bytes, no schema needed."""

from concurrent import futures

import grpc


def unary(request, context):
    context.send_initial_metadata((("x-initial", "first"),))
    context.set_trailing_metadata((("x-trailing", "last"), ("x-bytes-bin", b"\x00\xff\x7f")))
    return b"unary:" + request


def server_stream(request, _):
    for i in range(5):
        yield b"%d:" % i + request


def client_stream(requests, _):
    return b"+".join(requests)


def both(requests, _):
    for request in requests:
        yield b"echo:" + request


def fail(_, context):
    context.set_trailing_metadata((("x-reason", "because"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "nothing here: 100 % sure, \u00e9")


def fail_late(request, context):
    yield b"one:" + request
    yield b"two:" + request
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no more")


def metadata(_, context):
    return repr([tuple(pair) for pair in context.invocation_metadata()]).encode()


handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "Both": grpc.stream_stream_rpc_method_handler(both),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
    "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
}
server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(f"listening {port}")
server.wait_for_termination()
