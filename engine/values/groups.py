"""GUIDs of the groups that the platform itself puts flows, resources and documents into (spec 8.2)."""

from __future__ import annotations

from typing import Final

IP_FLOWS: Final = "{99A78737-4B41-4387-8F31-8077DB917336}"

DNS_RESOURCES: Final = "{D1E27FF0-6D66-4E57-BB91-99F76BB2143E}"
HTTP_URIS: Final = "{4EF9DEB9-4332-4867-A667-6A30C5900E9E}"
SSL_CERTS: Final = "{5AEE3F0B-9304-44BE-BBD0-0467052CF468}"
FILE_HASHES: Final = "{9781DB2C-F78A-4F7F-A7E8-2B1A9A7BE71A}"

DNS_DOCUMENTS: Final = "{09B305DF-078C-4B9E-8E2F-EA64B7326880}"
HTTP_DOCUMENTS: Final = "{28217924-E7A5-4523-993C-44B52758D5A8}"
SSL_DOCUMENTS: Final = "{9FEB8ADE-ADBB-49AD-BC68-C6A02F389C71}"

ALERT_TITLES: Final = {
    "{9AFD8C08-07EB-47E0-BF05-28B4A7AE8DC9}": "External IDS",
    "{5E97C3A3-41DB-4E34-92C3-87C904FAB83E}": "Blacklist Activity",
    "{03AC6B72-FDB7-44C0-9B8C-7A1975C1C5BA}": "Threshold Crossing",
    "{18CE5961-38FF-4AEA-BAF8-2019F3A09063}": "Flow Tracker",
    "{F69C2462-ECEA-45B8-B1CB-F90342D37A4F}": "System Alerts",
    "{B5F1DECB-51D5-4395-B71B-6FA730B772D9}": "User Alerts",
}
"""Titles of alert groups by GUID, as `T.alertgroups` has them the other way round."""
