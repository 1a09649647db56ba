"""A via log on NATS JetStream, written from docs/wire-format.md alone."""

import argparse
import asyncio
import json

import nats
from nats.errors import NoRespondersError

SELF = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
UNNAMED = "="
NO_MESSAGE_FOUND = 10037


class Refused(Exception):
    """The server said no, and why."""

    def __init__(self, error):
        super().__init__(f"{error.get('err_code')}: {error.get('description')}")
        self.code = error.get("err_code")


def encode(name):
    """The token of a family or an instance."""
    return "".join(chr(byte) if byte in SELF else f"={byte:02X}" for byte in name.encode())


def decode(token):
    """The name of a token; None if no name becomes it."""
    name, at = bytearray(), 0
    while at < len(token):
        if token[at] == "=":
            digits = token[at + 1 : at + 3]
            if len(digits) != 2 or not all(digit in "0123456789ABCDEF" for digit in digits):
                return None
            byte = int(digits, 16)
            if byte in SELF:
                return None
            at += 3
        else:
            byte = ord(token[at])
            if byte not in SELF:
                return None
            at += 1
        name.append(byte)
    try:
        return name.decode() or None
    except UnicodeDecodeError:
        return None


class Log:
    """The stream of one prefix, in the incarnation it has now."""

    def __init__(self, client, prefix, incarnation):
        self.client = client
        self.stream = f"{prefix}-events"
        self.root = f"{prefix}.{incarnation}."

    @classmethod
    async def connect(cls, url, prefix):
        client = await nats.connect(url, connect_timeout=5, max_reconnect_attempts=3)
        answer = await ask(client, f"$JS.API.STREAM.INFO.{prefix}-events", b"{}")
        incarnation = (answer["config"].get("metadata") or {}).get("via-incarnation")
        if incarnation is None:
            raise SystemExit(f"the stream {prefix}-events is not via's")
        return cls(client, prefix, incarnation)

    def subject(self, kind, family, instance):
        last = UNNAMED if instance is None else encode(instance)
        return f"{self.root}{kind}.{encode(family)}.{last}"

    def key(self, subject):
        """Family and instance of a record's subject; None if it is nobody's."""
        tokens = subject.removeprefix(self.root).split(".")
        if len(tokens) != 3 or tokens[0] != "e":
            return None
        family = decode(tokens[1])
        instance = None if tokens[2] == UNNAMED else decode(tokens[2])
        if family is None or (instance is None and tokens[2] != UNNAMED):
            return None
        return family, instance

    async def message(self, wanted):
        """One message of the stream, as its leader has it; None if there is none."""
        try:
            subject = f"$JS.API.STREAM.MSG.GET.{self.stream}"
            return (await ask(self.client, subject, json.dumps(wanted).encode()))["message"]
        except Refused as refused:
            if refused.code == NO_MESSAGE_FOUND:
                return None
            raise

    async def close(self):
        await self.client.close()


async def ask(client, subject, payload, headers=None):
    """A request and its JSON answer."""
    try:
        answer = json.loads((await client.request(subject, payload, timeout=10, headers=headers)).data)
    except NoRespondersError:
        raise SystemExit(f"nobody listens to {subject}: nothing was stored") from None
    if "error" in answer:
        raise Refused(answer["error"])
    return answer


def run(work):
    asyncio.run(asyncio.wait_for(work, timeout=60))


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--url", required=True)
    parser.add_argument("--prefix", default="via")
    parser.add_argument("--family", required=True)
    parser.add_argument("--instance", help="without it, the family's plain field")
    return parser
