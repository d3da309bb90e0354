"""The rotators that are installed."""

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from services.secrets.rotation.rotator import Rotator, Surroundings
from services.shared.errors import InvalidArgument

_GROUP = "strongroom.rotators"


class RotatorUnknown(InvalidArgument):
    reason = "ROTATOR_UNKNOWN"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"There is no rotator {name!r}. There are: {', '.join(sorted(known))}.", rotator=name)


class Rotators:
    """Rotators by name, each made when it is first needed: those for clouds need packages that others do without."""

    def __init__(self, surroundings: Surroundings, found: Iterable[EntryPoint] | None = None) -> None:
        self._surroundings = surroundings
        self._found = {point.name: point for point in (entry_points(group=_GROUP) if found is None else found)}
        self._made: dict[str, Rotator] = {}

    @property
    def names(self) -> list[str]:
        return sorted(self._found)

    def get(self, name: str) -> Rotator:
        """Raises RotatorUnknown, also for one whose package is not installed."""
        if name not in self._made:
            point = self._found.get(name)
            if point is None:
                raise RotatorUnknown(name, self._found)
            try:
                self._made[name] = point.load()(self._surroundings)
            except ImportError:
                raise RotatorUnknown(name, self._found) from None
        return self._made[name]
