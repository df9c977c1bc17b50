"""Finding and loading plugins: each on its own, so that a broken one takes nothing else down."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib.metadata
import importlib.util
import itertools
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from lprf import hooks
from lprf.component import Component, check_component
from lprf.errors import PluginError

GROUP = "lprf"


@dataclass(frozen=True)
class Plugin:
    """A plugin that loaded: its components by name, its folder of recipes, and who distributes it.

    digest: of a single file, the SHA-256 of its content.
    """

    name: str
    distribution: str
    version: str
    module: ModuleType
    components: dict[str, Component] = field(default_factory=dict)
    recipes: Path | None = None
    digest: str = ""


@dataclass(frozen=True)
class Entry:
    """An entry point of the group: who claims a name, and where it points."""

    distribution: str
    version: str
    target: str


class Plugins:
    """The plugins of this environment. Nothing is imported until it is asked for by name."""

    def __init__(self, entry_points: Iterable[importlib.metadata.EntryPoint] | None = None):
        self.manager = pluggy.PluginManager("lprf")
        self.manager.add_hookspecs(hooks)
        self.entries: dict[str, list[Entry]] = {}
        self.failures: dict[str, str] = {}
        self._loaded: dict[str, Plugin] = {}
        self._warned: set[str] = set()
        for point in importlib.metadata.entry_points(group=GROUP) if entry_points is None else entry_points:
            distribution = point.dist.name if point.dist is not None else "unknown"
            version = point.dist.version if point.dist is not None else ""
            claims = self.entries.setdefault(point.name, [])
            # one distribution can be seen twice: an editable install beside its build folder
            if all(claim.distribution != distribution for claim in claims):
                claims.append(Entry(distribution, version, point.value))

    def names(self) -> list[str]:
        """The names of all plugins, working or not, sorted."""
        return sorted({*self.entries, *self._loaded})

    def load(self, name: str) -> Plugin:
        """Load one plugin, or give it again.

        Raises PluginError: no such plugin, claimed by two distributions, or broken (it stays in `failures`).
        """
        if name in self._loaded:
            return self._loaded[name]
        if name in self.failures:
            raise PluginError(self.failures[name])
        claims = self.entries.get(name)
        if not claims:
            raise PluginError(f"there is no plugin '{name}'{suggest(name, self.names())}; `lprf plugins` lists them")
        if len(claims) > 1:
            both = " and ".join(f"{claim.distribution} {claim.version}".strip() for claim in claims)
            raise self._failed(name, f"plugin '{name}' is claimed by two distributions, {both}: uninstall one")
        claim = claims[0]
        label = f"plugin '{name}' ({claim.distribution} {claim.version})".replace(" )", ")")
        try:
            module = importlib.import_module(claim.target)
        except (Exception, SystemExit) as error:
            raise self._failed(name, f"{label} did not load: {type(error).__name__}: {error}") from error
        return self._register(name, claim.distribution, claim.version, module, label)

    def load_file(self, path: str | Path) -> Plugin:
        """Load a plugin from a single Python file, named by the person at the keyboard (never by a recipe)."""
        path = Path(path)
        name = path.stem
        label = f"plugin '{name}' ({path})"
        if name in self.entries or name in self._loaded:
            raise PluginError(f"{label}: an installed plugin has this name; rename the file")
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise PluginError(f"{label}: not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise self._failed(name, f"{label} did not load: {type(error).__name__}: {error}") from error
        plugin = self._register(name, str(path), "", module, label)
        self._loaded[name] = replace(plugin, digest=hashlib.sha256(path.read_bytes()).hexdigest())
        return self._loaded[name]

    def load_all(self) -> list[Plugin]:
        """Load every plugin that can be loaded, sorted by name; the others are in `failures`."""
        loaded = []
        for name in self.names():
            try:
                loaded.append(self.load(name))
            except PluginError:
                continue
        return loaded

    def component(self, uses: str) -> Component:
        """The component that `plugin.component` names. Raises PluginError with a suggestion."""
        plugin_name, _, component_name = uses.partition(".")
        plugin = self.load(plugin_name)
        if component_name not in plugin.components:
            hint = suggest(component_name, plugin.components)
            raise PluginError(f"plugin '{plugin_name}' has no component '{component_name}'{hint}")
        return plugin.components[component_name]

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call a hook of every loaded plugin; one that raises is named in a warning, once, and ends nothing."""
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            try:
                implementation.function(**{name: arguments[name] for name in implementation.argnames})
            except Exception as error:
                name = implementation.plugin_name
                if name not in self._warned:
                    self._warned.add(name)
                    message = f"plugin '{name}' failed in its hook {hook}: {type(error).__name__}: {error}"
                    warnings.warn(message, RuntimeWarning, stacklevel=2)

    def _failed(self, name: str, message: str) -> PluginError:
        self.failures[name] = message
        return PluginError(message)

    def _register(self, name: str, distribution: str, version: str, module: ModuleType, label: str) -> Plugin:
        try:
            self.manager.register(module, name=name)
            self.manager.check_pending()
            components: dict[str, Component] = {}
            recipes: Path | None = None
            for implementation in self.manager.hook.lprf_components.get_hookimpls():
                if implementation.plugin is module:
                    declared: Any = implementation.function()
                    for component in declared:
                        check_component(component)
                        components[component.name] = component
            for implementation in self.manager.hook.lprf_recipes.get_hookimpls():
                if implementation.plugin is module:
                    recipes = Path(str(implementation.function()))
        except (Exception, SystemExit) as error:
            if self.manager.has_plugin(name):
                self.manager.unregister(module)
            raise self._failed(name, f"{label} did not load: {type(error).__name__}: {error}") from error
        plugin = Plugin(name, distribution, version, module, components, recipes)
        self._loaded[name] = plugin
        return plugin


@functools.cache
def installed() -> Plugins:
    """The plugins of this environment, found once a process."""
    return Plugins()


def suggest(word: str, among: Iterable[str]) -> str:
    """ "; did you mean 'detector'?", or nothing where nothing is near."""
    if len(word) > 64:  # comparing takes the square of the length
        return ""
    near = difflib.get_close_matches(word, list(itertools.islice(among, 500)), n=1, cutoff=0.55)
    return f"; did you mean '{near[0]}'?" if near else ""
