"""What the surroundings decide, not the model: `RETUNE_…` variables, or an `.env` file in the project's folder."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Deadlines of the managed local Prefect server, and the address of another one."""

    model_config = SettingsConfigDict(env_prefix="RETUNE_", extra="ignore", frozen=True)

    prefect_api_url: str = Field("", description="a Prefect server to use instead of the managed local one")
    server_deadline: float = Field(120, gt=0, description="seconds that a server may take to start, or be gone during a run")
    server_linger: float = Field(300, ge=0, description="seconds that the managed server stays up after its last user has left")


def read_settings(project: Path) -> Settings:
    """Read the settings of a project; a variable wins over the file."""
    return Settings(_env_file=project / ".env")
