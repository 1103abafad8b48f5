"""Runs one attack against one loopback server and prints what was sent and what came back, as one line of JSON."""

import argparse
import json
import resource

import http1
import http2
import sources
from lines import Driver

# Attacks whose bytes are TLS but made by hand.
RAW_TLS = {"sources-client-hello", "tls-tiny-hello"}


def main():
    attacks = {**http2.ATTACKS, **http1.ATTACKS, **sources.ATTACKS}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=[*attacks, "tls-renegotiation"])
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls-port", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, help="at a time; left out, what the attack needs")
    parser.add_argument("--sources", type=int, default=10000, help="different addresses of 127.0.0.0/8")
    parser.add_argument("--first-source", type=int, default=0, help="number of the first of them")
    options = parser.parse_args()
    options.raw_tls = options.name in RAW_TLS
    if not options.address.startswith("127."):
        parser.error("only loopback addresses are attacked")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.name == "tls-renegotiation":
        print(json.dumps(http1.renegotiate(options)))
        return
    print(json.dumps(Driver(attacks[options.name](options), options).run()))


if __name__ == "__main__":
    main()
