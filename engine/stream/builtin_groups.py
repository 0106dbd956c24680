"""The groups that are there without a script: plain data (spec 8.2, 8.3; the newer meters where lists differ)

Numbers of connections that are open are running counters, whatever the list says.
"""

from __future__ import annotations

from typing import Literal

_HOSTS = (
    "Total R, Received R, Transmit R, Total pps P, Active conns RC, Attacker alerts C, Homenet R, External R,"
    " SYN sent C, SYN recv C, SYNACK sent C, Blacklist alerts C, Victim alerts C, New conns C, Into interface R,"
    " Out of interface R, Flow records C"
)
_HOSTS_IPV6 = (
    "Total R, Received R, Transmit R, Total pps P, Active TCP conns RC, Attacker alerts G, Homenet R, External R,"
    " SYN sent G, SYN recv G, SYNACK sent G, RSTFIN sent G, Victim alerts G"
)
_SCRIPT_HOSTS = "{9807E97A-6CD2-442F-BB18-8C104C8EB204}"
_APP_ID = "Total R, Download R, Upload R, Transit R, Internal R, Flows C"

HOSTS = "{4CD742B1-C1CA-4708-BE78-0FCA2EB01A86}"
INTERNAL_HOSTS = "{889900CC-0063-11A5-8380-FEBDBABBDBEA}"
EXTERNAL_HOSTS = "{00AA77BB-0063-11A5-8380-FEBDBABBDBEA}"
APPS = "{C51B48D4-7876-479E-B0D9-BD9EFF03CE2E}"
AGGREGATES = "{393B5EBC-AB41-4387-8F31-8077DB917336}"
NETWORK_LAYER = "{E89BCD56-30AD-40F5-B1C8-8B7683F440BD}"
LINK_LAYER = "{9F5AD3A9-C74D-46D8-A8A8-DCDD773730BA}"

METER_TYPES = {
    "C": (2, ""),
    "R": (4, "B/s"),
    "P": (4, "packets/s"),
    "E": (4, "records/s"),
    "G": (5, ""),
    "RC": (8, ""),
    "A": (9, ""),
    "DR": (10, "B/s"),
}
"""Letters of the lists below: the meter type that each stands for, and units of its values as they are stored."""

COUNTER_GROUPS: tuple[tuple[str, str, str], ...] = (
    ("Hosts", HOSTS, _HOSTS),
    ("Internal Hosts", INTERNAL_HOSTS, _HOSTS),
    ("External Hosts", EXTERNAL_HOSTS, _HOSTS),
    ("Web Hosts", "{EEF95297-0C8D-4673-AD6B-F4BD2345FD69}", _HOSTS),
    ("Email Hosts", "{22D4082E-B8BA-40D0-A287-1F524DF8DA7B}", _HOSTS),
    ("SSH Hosts", "{439002E4-3758-4E88-9438-8034FE1616AF}", _HOSTS),
    ("Unusual Traffic Hosts", "{AE3A1449-5663-41A5-A028-FDE61DBB7EFA}", _HOSTS),
    ("HostsIPv6", "{6CD742B1-C1CA-4708-BE78-0FCA2EB01A86}", _HOSTS_IPV6),
    ("HostsIPv6 (scripts)", _SCRIPT_HOSTS, _HOSTS_IPV6),
    (
        "Apps",
        APPS,
        "Total R, Security alerts C, Into homenet R, Out of homenet R, Connections C, Internal R, Transit R,"
        " Active conns RC, Into interface R, Out of interface R",
    ),
    ("Subnets", "{429B65AD-CDA4-452E-A852-24D8A3D0FBB3}", "Total R, Received R, Transmit R, pps P"),
    (
        "Aggregates",
        AGGREGATES,
        "Total R, Packets P, Active sessions RC, L2 broadcast R, L2 multicast R, L2 unicast R, L3 broadcast R,"
        " L3 multicast R, L3 unicast R, Fragments P",
    ),
    (
        "NetworkLayerStats",
        NETWORK_LAYER,
        "Bytes R, Packets C, Active flows RC, Total flows C, Into interface R, Out of interface R",
    ),
    ("LinkLayerStats", LINK_LAYER, "Bytes R, Packets P"),
    ("Mac", "{4B09BD22-3B99-40FC-8215-94A430EA0A35}", "Transmit R, Receive R"),
    ("Dir Mac", "{79F60A94-44BD-4C55-891A-77823D59161B}", "Total R, A to Z R, Z to A R"),
    ("Interfaces", "{8AC478BC-8891-0009-5F31-80774B010086}", "Total R, Packets P"),
    ("VLANStats", "{0EC72E9E-3AD2-43FD-8173-74693EEA08D0}", "Bytes R, Received R, Transmit R"),
    (
        "VSAT",
        "{A8776788-B8E3-4108-AD24-0E3927D9364B}",
        "Total R, Out-route R, In-route R, UDP down R, UDP up R, TCP down R, TCP up R, Mcast down R, Mcast up R,"
        " Others down R, Others up R",
    ),
    ("HTTP Hosts", "{D2AAD7C6-E129-4366-A2AD-A8CB9AA4C2F4}", "Total R"),
    ("HTTP Content Types", "{C0C9757F-2005-4CC5-BB96-D72F607E6188}", "Total R, Hits C"),
    ("HTTP Methods", "{2A6957EB-4992-46CD-8E49-BE32318669D3}", "Total C"),
    ("HTTP Status Codes", "{25E80A84-C175-4C01-977C-1411F5D10B56}", "Total C"),
    ("ICMP Types", "{FA6466E2-EA6A-4E75-8F39-ADE7708C6F46}", "Bytes R, Packets P"),
    (
        "FlowGens",
        "{2314BB8E-2BCC-4B86-8AA2-677E5554C0FE}",
        "Bytes R, Flow bytes R, Flow records E, Post-filter bytes R, Post-filter records E",
    ),
    (
        "FlowIntfs",
        "{C0B04CA7-95FA-44EF-8475-3835F3314761}",
        "Total R, Recv R, Xmit R, Flows C, Recv-Util G, Xmit-Util G",
    ),
    (
        "SNMP-Interface",
        "{9781DB2C-F78A-4F7F-A7E8-2B1A9A7BE71A}",
        "Total DR, In DR, Out DR, Recv-Util G, Xmit-Util G",
    ),
    ("Alert Signatures", "{A0FA9464-B496-4A20-A9AB-4D2D09AFF902}", "Total alerts C"),
    ("Alert Classes", "{20BC4345-37F0-44D0-ABFF-3BED97363CB1}", "Total alerts C"),
    ("Alert Priorities", "{9EFAFDD0-6CBB-4C04-8B13-2C8E0A9D3F85}", "Total alerts C"),
    ("TLS Organizations", "{432D7552-0363-4640-9CC5-23E4CA8410EA}", "Total R, Hits C"),
    ("TLS Cipher Suites", "{5B64A573-623F-4F5B-8865-78C62BF466A7}", "Total R, Hits C"),
    ("TLS Certificate Authorities", "{15856A98-7F87-46D7-84D2-18DD549F8A6F}", "Intermediate C, Root C"),
    ("Blacklist", "{6255BD85-2DCB-49E7-AF1F-1267AAF4DCA1}", "Hits C, Connections C"),
    (
        "Remote Office",
        "{664D68BF-5544-43CE-A895-50F2E179EA5A}",
        "Total R, Into branch R, Out of branch R, Alerts C",
    ),
    (
        "Meta Counter Group",
        "{4D88CC23-2883-4DEA-A313-A23B60FE8BDA}",
        "Master size G, MRU size G, Pending KU G, Flush us G, Flush keys G, New keys G, Key hits G, Unflushed keys G,"
        " Heap G, Tail prunes G, Hi-water rejects G",
    ),
    (
        "Meta Session Group",
        "{594606BD-EEB2-4E0B-BAC4-84B7057088C8}",
        "Master size G, MRU size G, New G, Closed G, Expired G, Terminated G, Flushed G, FlushedActive G, Key hits G,"
        " Heap G, Tail prunes G, Hi-water rejects G, After term G, Flush us G",
    ),
    ("App-ID", "{9021F5D3-FEFB-401B-99EC-EF2ACD088578}", _APP_ID),
    ("User-ID", "{86A8880D-F4B2-4E49-A4FA-718880CAA976}", _APP_ID),
    ("Base Domain", "{74FE9532-EDEB-421E-BD92-B5C62E7F2346}", "Total R"),
)
"""Name, GUID, and meters from 0 on, each with the letters of its type. `Organization` and `Unleash Apps` have no meters
that the spec agrees on and are left to scripts."""

NAMED_GROUPS: tuple[tuple[Literal["alert", "resource", "fts", "session"], str, str], ...] = (
    ("session", "IP flows", "{99A78737-4B41-4387-8F31-8077DB917336}"),
    ("alert", "External IDS", "{9AFD8C08-07EB-47E0-BF05-28B4A7AE8DC9}"),
    ("alert", "Blacklist Activity", "{5E97C3A3-41DB-4E34-92C3-87C904FAB83E}"),
    ("alert", "Threshold Crossing", "{03AC6B72-FDB7-44C0-9B8C-7A1975C1C5BA}"),
    ("alert", "Flow Tracker", "{18CE5961-38FF-4AEA-BAF8-2019F3A09063}"),
    ("alert", "System Alerts", "{F69C2462-ECEA-45B8-B1CB-F90342D37A4F}"),
    ("alert", "User Alerts", "{B5F1DECB-51D5-4395-B71B-6FA730B772D9}"),
    ("resource", "DNS Resources", "{D1E27FF0-6D66-4E57-BB91-99F76BB2143E}"),
    ("resource", "HTTP URIs", "{4EF9DEB9-4332-4867-A667-6A30C5900E9E}"),
    ("resource", "SSL Certs", "{5AEE3F0B-9304-44BE-BBD0-0467052CF468}"),
    ("resource", "File Hashes", "{9781DB2C-F78A-4F7F-A7E8-2B1A9A7BE71A}"),
    ("resource", "Intel harvested", "{EE1C9F46-0542-4A7E-4C6A-55E2C4689419}"),
    ("fts", "SSL Certs", "{9FEB8ADE-ADBB-49AD-BC68-C6A02F389C71}"),
    ("fts", "HTTP Headers", "{28217924-E7A5-4523-993C-44B52758D5A8}"),
    ("fts", "DNS Records", "{09B305DF-078C-4B9E-8E2F-EA64B7326880}"),
)
"""Kind, name and GUID."""
