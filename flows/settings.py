"""What the surroundings decide, not the model: `RETUNE_…` variables, or an `.env` file in the project's folder."""

from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from components.errors import BadParams
from components.params import Section


class EnvironmentSettings(Section):
    """Where versions live besides this project: a store of MLflow's, and the ledger that goes with it."""

    mlflow: str = Field(min_length=1, description="address of a tracking server, or sqlite:////…/mlflow.db")
    ledger: str = Field(min_length=1, description="SQLAlchemy's address of the ledger, as postgresql+psycopg://… or sqlite:////…/ledger.db")


class Settings(BaseSettings):
    """Deadlines of the managed local Prefect server, the address of another one, other environments, and who acts."""

    model_config = SettingsConfigDict(env_prefix="RETUNE_", extra="ignore", frozen=True)

    prefect_api_url: str = Field("", description="a Prefect server to use instead of the managed local one")
    server_deadline: float = Field(120, gt=0, description="seconds that a server may take to start, or be gone during a run")
    server_linger: float = Field(300, ge=0, description="seconds that the managed server stays up after its last user has left")
    user: str = Field("", description="who promotes, as the ledger names them; the account and the machine when empty")
    environments: dict[str, EnvironmentSettings] = Field(
        default_factory=dict, description='JSON: {"production": {"mlflow": "http://…", "ledger": "postgresql+psycopg://…"}}'
    )


def read_settings(project: Path) -> Settings:
    """Read the settings of a project; a variable wins over the file.

    Raises:
        BadParams: a variable cannot be read; the message names it.
    """
    try:
        return Settings(_env_file=project / ".env")
    except SettingsError as error:
        raise BadParams(f'{error}; RETUNE_ENVIRONMENTS is JSON: {{NAME: {{"mlflow": …, "ledger": …}}}}') from None
    except ValidationError as error:
        faults = [f"RETUNE_{'.'.join(map(str, fault['loc'])).upper()}: {fault['msg']}" for fault in error.errors()]
        raise BadParams("; ".join(faults)) from None
