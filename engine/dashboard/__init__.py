"""The edge that people and monitors look at: metrics, health, questions to the database, and a page, over HTTP.

Nothing here imports Starlette or uvicorn before `serve` is entered, so the rest of the engine runs without them.
"""

from engine.dashboard.address import Address, ServeError
from engine.dashboard.serving import Serving, serve

__all__ = ["Address", "ServeError", "Serving", "serve"]
