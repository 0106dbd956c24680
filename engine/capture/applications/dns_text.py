"""DNS messages as the texts that scripts look into: the resources "DNS Resources", the documents "DNS Records"."""

from __future__ import annotations

from engine.capture.applications.dns import DnsMessage
from engine.values.records import DnsAnswer, DnsQuestion


def resource(message: DnsMessage) -> tuple[str, str] | None:
    """`uri` and `contents` of a response's resource (spec, appendix A). None for a query.

    The uri is the name asked for, in lower case; what was not asked for (mDNS) goes by the name of its first record.
    Contents are the records, a line each: ``www.example.com A  192.0.2.1``.
    """
    named: tuple[DnsQuestion | DnsAnswer, ...] = message.questions or message.answers
    if not message.is_response or not named:
        return None
    return named[0].name.lower(), "\n".join(f"{_name(each.name)} {each.type}  {each.data}" for each in message.answers)


def document(message: DnsMessage) -> str:
    """The full text of a message: a head line with tabs, then the sections (spec, appendix A)."""
    head = (
        "RESPONSE" if message.is_response else "QUERY",
        f"ID: {message.id}",
        f"Flags:0x{message.flags:04x}",
        f"Questions: {len(message.questions)}",
        f"Answers: {message.answer_count}",
        f"Authority: {message.authority_count}",
        f"Additional: {message.additional_count}",
    )
    lines = ["\t".join(head)]
    if message.questions:
        lines.append("Questions")
        lines += [f".{each.name}\t\t{each.type}\tIN" for each in message.questions]
    if message.answers:
        lines.append("Answers")
        lines += [f".{each.name}\t\t{each.type}\tIN\t{each.ttl}\t{each.data}" for each in message.answers]
    return "\n".join(lines) + "\n"


def _name(name: str) -> str:
    return name or "."
