"""What keys of the built-in groups stand for, as people write it: labels of keys that no script gave one (spec 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv6Address
from types import MappingProxyType

from engine.stream.builtin_groups import APPS, COUNTER_GROUPS, LINK_LAYER, NETWORK_LAYER

_SERVICES = {
    20: "ftp-data", 21: "ftp", 22: "ssh", 23: "telnet", 25: "smtp", 43: "whois", 49: "tacacs", 53: "domain",
    67: "bootps", 68: "bootpc", 69: "tftp", 79: "finger", 80: "http", 88: "kerberos", 110: "pop3", 111: "sunrpc",
    113: "auth", 119: "nntp", 123: "ntp", 135: "epmap", 137: "netbios-ns", 138: "netbios-dgm", 139: "netbios-ssn",
    143: "imap", 161: "snmp", 162: "snmptrap", 179: "bgp", 194: "irc", 389: "ldap", 443: "https",
    445: "microsoft-ds", 465: "submissions", 500: "isakmp", 514: "syslog", 515: "printer", 520: "router",
    546: "dhcpv6-client", 547: "dhcpv6-server", 554: "rtsp", 587: "submission", 631: "ipp", 636: "ldaps",
    853: "domain-s", 873: "rsync", 989: "ftps-data", 990: "ftps", 993: "imaps", 995: "pop3s", 1194: "openvpn",
    1433: "ms-sql-s", 1701: "l2tp", 1723: "pptp", 1812: "radius", 1883: "mqtt", 1900: "ssdp", 2049: "nfs",
    2055: "netflow", 3306: "mysql", 3389: "ms-wbt-server", 3478: "stun", 4500: "ipsec-nat-t", 4789: "vxlan",
    5060: "sip", 5061: "sips", 5222: "xmpp-client", 5353: "mdns", 5355: "llmnr", 5432: "postgresql", 5672: "amqp",
    5900: "rfb", 6081: "geneve", 6343: "sflow", 6379: "redis", 6667: "ircu", 8080: "http-alt", 8883: "secure-mqtt",
    9418: "git", 27017: "mongodb",
}  # fmt: skip
"""Of the registry of service names (RFC 6335), those that are met often; other ports are named by their number."""

_IP_PROTOCOLS = {
    0x00: "hop-by-hop", 0x01: "ICMP", 0x02: "IGMP", 0x04: "IPv4", 0x06: "TCP", 0x11: "UDP", 0x29: "IPv6",
    0x2C: "fragment", 0x2F: "GRE", 0x32: "ESP", 0x33: "AH", 0x3A: "ICMPv6", 0x59: "OSPF", 0x67: "PIM", 0x70: "VRRP",
    0x73: "L2TP", 0x84: "SCTP", 0x88: "UDPLite", 0x89: "MPLS",
}  # fmt: skip
_ETHERTYPES = {
    0x0000: "802.3", 0x0800: "IPv4", 0x0806: "ARP", 0x8035: "RARP", 0x8100: "VLAN", 0x86DD: "IPv6", 0x8809: "LACP",
    0x8847: "MPLS", 0x8848: "MPLS multicast", 0x8863: "PPPoE discovery", 0x8864: "PPPoE", 0x888E: "EAPOL",
    0x88A8: "QinQ", 0x88CC: "LLDP", 0x88E5: "MACsec", 0x88F7: "PTP", 0x9000: "loopback test",
}  # fmt: skip


def _host(key: str) -> str:
    if len(key) == 32:
        return str(IPv6Address(bytes.fromhex(key)))
    return ".".join(str(number) for number in bytes.fromhex(key.replace(".", " "))) if len(key) == 11 else ""


def _port(key: str) -> str:
    port = int(key.removeprefix("p-"), 16)
    return _SERVICES.get(port, str(port))


def _by_number(names: Mapping[int, str]) -> Callable[[str], str]:
    return lambda key: names.get(int(key, 16), "")


_NAMERS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        **{guid: _host for name, guid, _ in COUNTER_GROUPS if "Hosts" in name and "HTTP" not in name},
        APPS: _port,
        NETWORK_LAYER: _by_number(_IP_PROTOCOLS),
        LINK_LAYER: _by_number(_ETHERTYPES),
    }
)


def names_keys(guid: str) -> bool:
    """Whether keys of a group have a meaning that `name_of` knows."""
    return guid in _NAMERS


def name_of(guid: str, key: str) -> str:
    """What a key of a group stands for; empty when that is not known, as for a key of another shape."""
    try:
        return _NAMERS[guid](key)
    except (KeyError, ValueError):
        return ""
