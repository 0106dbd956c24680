"""How several plugins are asked and told as one (spec 2.1, 9.2 H7 and H27)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.plugins.plugin import FAILED, Plugin


class Ballot:
    """The plugins of one script type.

    What they are asked is refused only if every one said false: a plugin without the hook, one that raised and one
    that returned no boolean count as yes.
    """

    def __init__(self, plugins: Sequence[Plugin], log: Callable[[Plugin, str], None]) -> None:
        """`log(plugin, text)` takes warnings about votes."""
        self._plugins = plugins
        self._log = log
        self._complained: set[Plugin] = set()

    def any_has(self, hook: str) -> bool:
        """Whether some plugin has the hook."""
        return any(hook in plugin.hooks for plugin in self._plugins)

    @property
    def stands(self) -> bool:
        """What a vote says when none of the plugins has the hook."""
        for plugin in self._plugins:
            if not plugin.closed:
                return True
        return not self._plugins

    def vote(self, hook: str, time: float, *args: Any) -> bool:
        """Ask all. Nobody there is a yes."""
        yes = not self._plugins
        for plugin in self._plugins:
            if plugin.closed:
                continue
            if hook not in plugin.hooks:
                yes = True
                continue
            answer = plugin.call(hook, time, 0, *args)
            if answer is not False:
                yes = True
            if answer is not FAILED and not isinstance(answer, bool):
                self._complain(plugin, hook)
        return yes

    def _complain(self, plugin: Plugin, hook: str) -> None:
        if plugin not in self._complained:
            self._complained.add(plugin)
            self._log(plugin, f"{plugin.block.name}.{hook} returned no boolean, which counts as true")

    def tell(self, hook: str, time: float, lease: int, *args: Any) -> None:
        """Call the hook in all that have it. `lease` is the file that async work of the call keeps, or 0."""
        for plugin in self._plugins:
            if hook in plugin.hooks and not plugin.closed:
                plugin.call(hook, time, lease, *args)
