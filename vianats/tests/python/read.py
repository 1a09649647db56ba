"""Prints the records of a key, or of a whole family, as JSON lines; first the key's floor, if it has one."""

import base64
import json

import msgpack
from google.protobuf.message import DecodeError

import log
from envelope_pb2 import Envelope  # Made from envelope.proto by protoc.

MESSAGE_PACK = 1


def record(key, message):
    family, instance = key
    said = {"family": family, "instance": instance, "offset": message["seq"]}
    try:
        event = Envelope.FromString(base64.b64decode(message.get("data", "")))
    except DecodeError:
        return said | {"undecodable": True}
    if len(event.id) != 16 or not event.name or (event.HasField("trace") and len(event.trace) != 25):
        return said | {"undecodable": True}
    said |= {
        "id": event.id.hex(),
        "time": event.time,
        "name": event.name,
        "version": event.version,
        "codec": event.codec,
    }
    if event.codec == MESSAGE_PACK:
        said["payload"] = msgpack.unpackb(event.payload)
    return said


async def main(given):
    source = await log.Log.connect(given.url, given.prefix)
    if given.whole_family:
        wanted = f"{source.root}e.{log.encode(given.family)}.*"
    else:
        wanted = source.subject("e", given.family, given.instance)
        floor = await source.message({"last_by_subj": source.subject("f", given.family, given.instance)})
        if floor is not None:
            offset, incarnation = base64.b64decode(floor["data"]).decode().split(" ")
            if source.root.endswith(f".{incarnation}."):
                print(json.dumps({"floor": int(offset)}))
    after = given.after
    while (message := await source.message({"seq": after + 1, "next_by_subj": wanted})) is not None:
        after = message["seq"]
        key = source.key(message["subject"])
        if key is not None:
            print(json.dumps(record(key, message)))
    await source.close()


parser = log.arguments(__doc__)
parser.add_argument("--whole-family", action="store_true")
parser.add_argument("--after", type=int, default=0, help="records above this offset")
log.run(main(parser.parse_args()))
