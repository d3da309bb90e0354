"""What a caller may see of the registry, and of what is stored here. Pure."""

from dataclasses import dataclass

from services.shared.identity import Principal


@dataclass(frozen=True)
class Sight:
    """What a principal may read."""

    principal: Principal

    def artifact(self, type_: str, id_: str) -> bool:
        return self.principal.allows("artifacts.read", f"artifacts/{type_}/{id_}")

    def model(self, manager_id: str, model_name: str) -> bool:
        return self.principal.allows("models.read", f"managers/{manager_id}/models/{model_name}")
