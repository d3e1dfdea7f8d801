# SPDX-License-Identifier: Apache-2.0
"""WS-Management messages of a Windows shell, as WinRM speaks them (MS-WSMV, DSP0226): XML in, XML out, faults."""

from __future__ import annotations

import re
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

MOST_ENVELOPE = 500 * 1024
"""Bytes of a message in either direction, MaxEnvelopeSizekb of Windows since 2012."""
_LEAST_ENVELOPE = 8 * 1024
_MOST_TIMEOUT = 60.0
"""Seconds that an operation may ask to wait, MaxTimeoutms of Windows."""

SOAP = "http://www.w3.org/2003/05/soap-envelope"
ADDRESSING = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
WSMAN = "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"
SHELL = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
CMD = f"{SHELL}/cmd"
CONFIG = "http://schemas.microsoft.com/wbem/wsman/1/config"
IDENTITY = "http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd"
TRANSFER = "http://schemas.xmlsoap.org/ws/2004/09/transfer"
ANONYMOUS = f"{ADDRESSING}/role/anonymous"
_FAULT = "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault"

_NAMESPACES = {
    "s": SOAP,
    "a": ADDRESSING,
    "w": WSMAN,
    "rsp": SHELL,
    "x": TRANSFER,
    "p": "http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd",
    "cfg": CONFIG,
    "wsmid": IDENTITY,
}


class Fault(Exception):
    """What the client is told when an operation cannot be done: WinRM's code and sentence, and SOAP's subcode."""

    def __init__(self, code: int, message: str, subcode: str = "w:InternalError", *, sender: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.subcode = subcode
        self.sender = sender


def invalid(message: str) -> Fault:
    """A message that does not say what it has to."""
    return Fault(2150858778, message, "w:SchemaValidationError")


@dataclass(frozen=True, slots=True)
class Request:
    """One message of a client. ``timeout`` in seconds, ``envelope`` in bytes, both within what is allowed."""

    action: str
    message_id: str
    resource: str
    selectors: Mapping[str, str]
    options: Mapping[str, str]
    timeout: float
    envelope: int
    body: ET.Element = field(repr=False)


def parse(data: bytes) -> Request | None:
    """The request in ``data``, None for Identify, which has no header. Raises Fault."""
    try:
        root = ET.fromstring(data)
    except (ET.ParseError, LookupError, ValueError) as error:  # LookupError: an encoding that nobody knows
        raise invalid(f"The message is not XML: {error}.") from None
    body = root.find("s:Body", _NAMESPACES)
    if root.tag != f"{{{SOAP}}}Envelope" or body is None:
        raise invalid("The message is not a SOAP 1.2 envelope with a body.")
    if body.find("wsmid:Identify", _NAMESPACES) is not None:
        return None
    header = root.find("s:Header", _NAMESPACES)
    if header is None:
        raise invalid("The message has no header.")
    return Request(
        action=_text(header, "a:Action"),
        message_id=_text(header, "a:MessageID"),
        resource=_text(header, "w:ResourceURI"),
        selectors=_named(header, "w:SelectorSet/w:Selector"),
        options=_named(header, "w:OptionSet/w:Option"),
        timeout=min(seconds(header.findtext("w:OperationTimeout", "", _NAMESPACES), _MOST_TIMEOUT), _MOST_TIMEOUT),
        envelope=_envelope(header.findtext("w:MaxEnvelopeSize", "", _NAMESPACES)),
        body=body,
    )


def find(element: ET.Element, path: str) -> ET.Element | None:
    """``element.find`` with this module's prefixes."""
    return element.find(path, _NAMESPACES)


def find_all(element: ET.Element, path: str) -> list[ET.Element]:
    """``element.findall`` with this module's prefixes."""
    return element.findall(path, _NAMESPACES)


def seconds(text: str, default: float) -> float:
    """An xs:duration of days, hours, minutes and seconds; plain numbers are seconds. Raises Fault."""
    if not text.strip():
        return default
    pattern = r"P(?:(\d{1,6})D)?(?:T(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,9}(?:\.\d{1,9})?)S)?)?"
    if re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", text.strip()):
        return float(text)
    found = re.fullmatch(pattern, text.strip())
    if found is None:
        raise invalid(f"{text.strip()[:40]} is not a duration.")
    factors = (86400, 3600, 60, 1)
    return sum(float(part or 0) * factor for part, factor in zip(found.groups(), factors, strict=True))


def response(request: Request, action: str, body: str) -> bytes:
    """The answer to ``request``; ``body`` is XML with this module's prefixes."""
    return _message(action, request.message_id, body)


def identify_response() -> bytes:
    """The answer to Identify: what this is, and that it is no Windows."""
    return (
        f'<s:Envelope xmlns:s="{SOAP}"><s:Header/><s:Body><wsmid:IdentifyResponse xmlns:wsmid="{IDENTITY}">'
        f"<wsmid:ProtocolVersion>{WSMAN}</wsmid:ProtocolVersion>"
        "<wsmid:ProductVendor>vmrole</wsmid:ProductVendor>"
        "<wsmid:ProductVersion>OS: 6.1.7601 SP: 1.0 Stack: 3.0 (stand-in guest)</wsmid:ProductVersion>"
        "</wsmid:IdentifyResponse></s:Body></s:Envelope>"
    ).encode()


def fault_response(fault: Fault, message_id: str = "") -> bytes:
    """``fault`` as a message."""
    text = escape(fault.message)
    body = (
        f"<s:Fault><s:Code><s:Value>s:{'Sender' if fault.sender else 'Receiver'}</s:Value>"
        f"<s:Subcode><s:Value>{fault.subcode}</s:Value></s:Subcode></s:Code>"
        f'<s:Reason><s:Text xml:lang="en-US">{text}</s:Text></s:Reason>'
        f'<s:Detail><f:WSManFault xmlns:f="{_FAULT}" Code="{fault.code}" Machine="localhost">'
        f"<f:Message>{text}</f:Message></f:WSManFault></s:Detail></s:Fault>"
    )
    return _message("http://schemas.dmtf.org/wbem/wsman/1/wsman/fault", message_id, body)


def attribute(value: str) -> str:
    """``value`` as an XML attribute with its quotes."""
    return quoteattr(value)


def text(value: str) -> str:
    """``value`` as XML text."""
    return escape(value)


def _message(action: str, relates_to: str, body: str) -> bytes:
    related = f"<a:RelatesTo>{escape(relates_to)}</a:RelatesTo>" if relates_to else ""
    names = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in _NAMESPACES.items() if prefix not in ("cfg", "wsmid"))
    return (
        f'<s:Envelope xml:lang="en-US" {names}><s:Header><a:Action>{escape(action)}</a:Action>'
        f"<a:MessageID>uuid:{str(uuid.uuid4()).upper()}</a:MessageID><a:To>{ANONYMOUS}</a:To>{related}"
        f"</s:Header><s:Body>{body}</s:Body></s:Envelope>"
    ).encode()


def _text(header: ET.Element, path: str) -> str:
    value = (header.findtext(path, "", _NAMESPACES) or "").strip()
    if not value:
        raise Fault(2150858752, f"The message has no {path.partition(':')[2]}.", "a:MessageInformationHeaderRequired")
    return value


def _named(header: ET.Element, path: str) -> dict[str, str]:
    return {item.get("Name", ""): item.text or "" for item in header.findall(path, _NAMESPACES)}


def _envelope(text: str) -> int:
    text = text.strip()
    if not text:
        return MOST_ENVELOPE
    if not re.fullmatch(r"\d{1,12}", text):
        raise invalid("MaxEnvelopeSize is not a number.")
    if int(text) < _LEAST_ENVELOPE:
        message = f"MaxEnvelopeSize is {text}, the least is {_LEAST_ENVELOPE}."
        raise Fault(2150858777, message, "w:EncodingLimit")
    return min(int(text), MOST_ENVELOPE)
