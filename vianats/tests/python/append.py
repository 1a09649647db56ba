"""Appends events to a via log: one, or several as an atomic batch. Prints where the last one stands, as JSON."""

import json
import os
import secrets
import time

import msgpack

import log
from envelope_pb2 import Envelope  # Made from envelope.proto by protoc.

MESSAGE_PACK = 1


def uuid7():
    """48 bits of milliseconds, then chance, with version and variant in their places (RFC 9562)."""
    raw = bytearray((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10))
    raw[6] = raw[6] & 0x0F | 0x70
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


def envelope(name, version, payload):
    return Envelope(
        id=uuid7(),
        time=time.time_ns() // 1_000,
        name=name,
        version=version,
        codec=MESSAGE_PACK,
        payload=msgpack.packb(payload),
    )


async def main(given):
    events = [envelope(given.name, given.version, json.loads(payload)) for payload in given.payload]
    to = await log.Log.connect(given.url, given.prefix)
    subject = to.subject("e", given.family, given.instance)
    batch = secrets.token_hex(16)
    for number, event in enumerate(events, start=1):
        headers = {}
        if number == 1 and given.id is not None:
            headers["Nats-Msg-Id"] = given.id
        if number == 1 and given.expect is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(given.expect)
        if len(events) > 1:
            headers |= {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
        if number < len(events):
            await to.client.publish(subject, event.SerializeToString(), headers=headers)
            continue
        if len(events) > 1:
            headers["Nats-Batch-Commit"] = "1"
        try:
            answer = await log.ask(to.client, subject, event.SerializeToString(), headers or None)
            said = {"offset": answer["seq"], "duplicate": answer.get("duplicate", False), "id": event.id.hex()}
        except log.Refused as refused:
            said = {"refused": refused.code}
    print(json.dumps(said))
    await to.close()


parser = log.arguments(__doc__)
parser.add_argument("--name", required=True, help="the event's name")
parser.add_argument("--version", type=int, default=1)
parser.add_argument("--id", help="makes a repeat harmless")
parser.add_argument("--expect", type=int, help="the key's last offset, 0 for none")
parser.add_argument("payload", nargs="+", help="an event as JSON")
log.run(main(parser.parse_args()))
