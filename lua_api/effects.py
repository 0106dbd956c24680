"""Codes of the effects in an outbox and how many values follow each; the twin of effects.lua."""

from __future__ import annotations

from enum import IntEnum


class Effect(IntEnum):
    """What a hook left behind; the values of each are listed in effects.lua."""

    ERROR = 1
    COUNTERS = 2
    KEY_INFO = 3
    ALERT = 4
    RESOURCE = 5
    FLOW_UPDATE = 6
    EDGE = 7
    FLOW_EDGES = 8
    MESSAGE = 9
    DISABLE_REASSEMBLY = 10
    CODE = 11
    SCHEDULE = 12
    FILE_OPERATION = 13
    REJECTED = 14
    SCHEDULE_PACK = 15
    FLOW_COUNTER = 16
    RESET_FLOW_COUNTER = 17
    ALERT_EXTRA = 18
    BROADCAST = 19
    ANSWER = 20
    CALL = 21


WIDTH: dict[int, int] = {
    Effect.ERROR: 3,
    Effect.COUNTERS: 5,
    Effect.KEY_INFO: 4,
    Effect.ALERT: 8,
    Effect.RESOURCE: 5,
    Effect.FLOW_UPDATE: 4,
    Effect.EDGE: 4,
    Effect.FLOW_EDGES: 3,
    Effect.MESSAGE: 4,
    Effect.DISABLE_REASSEMBLY: 1,
    Effect.CODE: 2,
    Effect.SCHEDULE: 7,
    Effect.FILE_OPERATION: 6,
    Effect.REJECTED: 1,
    Effect.SCHEDULE_PACK: 3,
    Effect.FLOW_COUNTER: 7,
    Effect.RESET_FLOW_COUNTER: 4,
    Effect.ALERT_EXTRA: 1,
    Effect.BROADCAST: 3,
    Effect.ANSWER: 3,
    Effect.CALL: 3,
}
