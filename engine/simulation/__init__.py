"""Engines in virtual time, which repeat to the byte: for experiments, and for tests of scripts."""

from engine.simulation.latency import Latency
from engine.simulation.loop import TimeStandsStillError
from engine.simulation.simulation import Result, Simulation

__all__ = ["Latency", "Result", "Simulation", "TimeStandsStillError"]
