"""Environment settings: `RETUNE_…` variables, an `.env` file in the project's folder, or one file per secret.

Without them all state is embedded: SQLite and folders below `var/`. Settings that name shared services switch to those.
"""

import os
from io import StringIO
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

import sqlalchemy as sa
import sqlalchemy.exc
from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from components.core.documents import parse_json
from components.core.errors import BadParams
from components.core.locks import DATABASE
from components.core.output_dir import close_to_others
from components.core.section import Section, nearest, warn_once
from components.ledger.chain import KEY
from components.model.base_resolver import BASE, PROJECT
from components.training.trainer.state_dir import STATE

SECRETS = Path("/run/secrets")  # compose and Kubernetes mount secrets here, in files named like the variables: retune_database
PREFIX = "RETUNE_"
SQL = "RETUNE_SQL_"  # + NAME: the URL of a database that is used as a data source, sql://NAME
NOTHING = SecretStr("")


class EnvironmentSettings(Section):
    """Another environment: an MLflow store, and the ledger that belongs to it."""

    mlflow: str = Field(min_length=1, description="URL of a tracking server, or sqlite:////…/mlflow.db")
    ledger: str = Field(min_length=1, description="SQLAlchemy URL of the ledger, postgresql+psycopg://… or sqlite:////…/ledger.db")


class Settings(BaseSettings):
    """Shared services, deadlines of the managed local servers, other environments, and the user name."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file_encoding="utf-8-sig", extra="ignore", frozen=True, allow_inf_nan=False)

    database: SecretStr = Field(
        NOTHING, description="PostgreSQL database for ledger, studies and locks: postgresql+psycopg://USER:…@HOST/retune"
    )
    mlflow_uri: str = Field("", description="URL of MLflow's server, http://… or https://…")
    mlflow_user: str = Field("", description="user name for MLflow's server")
    mlflow_password: SecretStr = Field(NOTHING, description="password of RETUNE_MLFLOW_USER")
    mlflow_database: SecretStr = Field(
        NOTHING, description="MLflow's own database, postgresql+psycopg://mlflow:…@HOST/mlflow; used by `retune migrate` only"
    )
    prefect_api_url: str = Field("", description="API URL of a Prefect server to use instead of the managed local one, http://…/api")
    prefect_auth: SecretStr = Field(NOTHING, description="auth string of Prefect's server, USER:PASSWORD")
    dvc_remote: str = Field("", description="DVC remote: s3://BUCKET/PREFIX, or a folder")
    s3_endpoint: str = Field("", description="URL of an S3-compatible service, http://…; empty: Amazon S3")
    s3_access_key: str = Field("", description="access key of the S3 service")
    s3_secret_key: SecretStr = Field(NOTHING, description="secret key of RETUNE_S3_ACCESS_KEY")
    server_deadline: float = Field(120, gt=0, description="seconds that a server may take to start, or be unreachable during a run")
    server_linger: float = Field(300, ge=0, description="seconds that the managed server keeps running after its last use")
    ledger_key: SecretStr = Field(NOTHING, description="key that signs the ledger's head in MLflow; at least 16 characters")
    user: str = Field("", description="user name for the ledger; empty: ACCOUNT@HOST")
    notify: SecretStr = Field(
        NOTHING, description="notification targets: Apprise URLs, or block:TYPE/NAME for a Prefect block; separated by spaces"
    )
    environments: Annotated[dict[str, EnvironmentSettings], NoDecode] = Field(
        default_factory=dict,
        description='other environments, as JSON: {"production": {"mlflow": "http://…", "ledger": "postgresql+psycopg://…"}}',
    )

    @field_validator("environments", mode="before")
    @classmethod
    def _is_json(cls, value: object) -> object:
        try:
            return parse_json(value, "RETUNE_ENVIRONMENTS") if isinstance(value, str) else value
        except BadParams as error:
            raise BadParams(f'{error}; RETUNE_ENVIRONMENTS is JSON: {{NAME: {{"mlflow": …, "ledger": …}}}}') from None

    @field_validator("database", "mlflow_database")
    @classmethod
    def _is_postgresql(cls, database: SecretStr) -> SecretStr:
        if database.get_secret_value():
            try:
                url = sa.make_url(database.get_secret_value())
            except sqlalchemy.exc.ArgumentError:
                raise ValueError("expected postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE, found an invalid URL") from None
            if url.drivername != "postgresql+psycopg":
                raise ValueError(f"expected a URL that starts with postgresql+psycopg://, found {url.drivername}://")
        return database

    @field_validator("mlflow_uri", "prefect_api_url", "s3_endpoint")
    @classmethod
    def _is_http(cls, address: str) -> str:
        parts = urlsplit(address)
        if address and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("expected a URL that starts with http:// or https://")
        if parts.password:
            raise ValueError("expected a URL without a password; set RETUNE_MLFLOW_PASSWORD, RETUNE_PREFECT_AUTH … instead")
        return address.rstrip("/")

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        for first, second in (("mlflow_user", "mlflow_password"), ("s3_access_key", "s3_secret_key")):
            if bool(getattr(self, first)) != bool(_plain(getattr(self, second))):
                raise ValueError(f"RETUNE_{first.upper()} and RETUNE_{second.upper()} belong together: one of them is missing")
        return self

    def variables(self) -> dict[str, str]:
        """Return the environment variables for MLflow, Prefect, DVC and S3; empty for embedded services."""
        variables = {
            DATABASE: _plain(self.database),
            KEY: _plain(self.ledger_key),
            "MLFLOW_TRACKING_USERNAME": self.mlflow_user,
            "MLFLOW_TRACKING_PASSWORD": _plain(self.mlflow_password),
            "PREFECT_API_AUTH_STRING": _plain(self.prefect_auth),
            "AWS_ENDPOINT_URL_S3": self.s3_endpoint,
            "AWS_ACCESS_KEY_ID": self.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": _plain(self.s3_secret_key),
        }
        if self.s3_endpoint:
            variables["AWS_DEFAULT_REGION"] = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")  # required by boto3
        return {name: value for name, value in variables.items() if value}


def _plain(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def read_settings(project: Path) -> Settings:
    """Read the settings of a project; a variable takes precedence over the file `.env`, and that over `/run/secrets`.

    Raises:
        BadParams: a variable is invalid; the message names it and contains no secret.
    """
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {BASE, PROJECT, STATE}  # the last three are read elsewhere
    ours = (name for name in read_env_file(project) if name.upper().startswith(PREFIX) and not name.upper().startswith(SQL))
    if unknown := [name for name in ours if name.upper() not in known]:
        raise BadParams("; ".join(f"{project / '.env'}: no setting {name}{nearest(name.upper(), sorted(known))}" for name in unknown))
    try:
        return Settings(_env_file=project / ".env", _secrets_dir=SECRETS if SECRETS.is_dir() else None)
    except ValidationError as error:
        faults = [
            (".".join(map(str, fault["loc"])).upper(), fault["msg"].removeprefix("Value error, "))
            for fault in error.errors(include_input=False)
        ]
        raise BadParams("; ".join(f"RETUNE_{name}: {message}" if name else message for name, message in faults)) from None


def read_env_file(project: Path) -> dict[str, str | None]:
    """Return the variables of a project's `.env` file; empty if there is none. A variable that is set twice is an error."""
    path = project / ".env"
    if not path.is_file():
        return {}
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BadParams(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise BadParams(f"{path} is not UTF-8: line {line} contains the byte 0x{error.object[error.start]:02x}; save it as UTF-8") from None
    first: dict[str, int] = {}
    for binding in parse_stream(StringIO(text)):
        if binding.key is None:
            continue
        original = binding.original.string  # with the blank lines before it
        line = binding.original.line + original[: len(original) - len(original.lstrip())].count("\n")
        if binding.key in first:
            raise BadParams(f"{path}: {binding.key} is set in lines {first[binding.key]} and {line}; keep one of them")
        first[binding.key] = line
    return dotenv_values(stream=StringIO(text))


def load_into_environment(project: Path) -> Settings:
    """Read the settings of a project, and set the environment variables of the tools."""
    settings = read_settings(project)
    variables = settings.variables() | databases(project)
    if not settings.prefect_api_url:  # the managed server has a separate credential
        variables.pop("PREFECT_API_AUTH_STRING", None)
    os.environ.update(variables)
    close_to_others(project / "var")
    warn_of_readers(project / ".env")
    return settings


def warn_of_readers(file: Path) -> None:
    """Warn once if other accounts can read a file that may contain passwords."""
    try:
        mode = file.stat().st_mode & 0o777
    except OSError:
        return
    if mode & 0o004:
        warn_once(f"{file} is readable by every account of this host (mode {mode:o}) and may contain passwords: `chmod 600 {file}`")


def databases(project: Path) -> dict[str, str]:
    """Return the RETUNE_SQL_ variables of `.env` and `/run/secrets` that are not set in the environment."""
    files = {path.name.upper(): path for path in SECRETS.iterdir()} if SECRETS.is_dir() else {}
    secrets = {name: path.read_text(encoding="utf-8").strip() for name, path in files.items() if name.startswith(SQL)}
    urls = secrets | {name: value for name, value in read_env_file(project).items() if name.startswith(SQL)}
    return {name: value for name, value in urls.items() if value and name not in os.environ}
