"""What the surroundings decide, not the model: `RETUNE_…` variables, an `.env` file in the project's folder, or a file a secret.

Without any of them all state is embedded: SQLite and folders below `var/`. One file that names shared services switches to these.
"""

import logging
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
from components.core.section import Section, nearest
from components.ledger.chain import KEY
from components.model.base_resolver import BASE, PROJECT
from components.training.trainer.state_dir import STATE

SECRETS = Path("/run/secrets")  # where compose and Kubernetes lay secrets as files, named as the variables are: retune_database
PREFIX = "RETUNE_"
SQL = "RETUNE_SQL_"  # and a name: the address of a database that data come from, as sql://NAME
NOTHING = SecretStr("")
_WARNED: set[Path] = set()  # files of which this process has said that others can read them

log = logging.getLogger(__name__)


class EnvironmentSettings(Section):
    """Where versions live besides this project: a store of MLflow's, and the ledger that goes with it."""

    mlflow: str = Field(min_length=1, description="address of a tracking server, or sqlite:////…/mlflow.db")
    ledger: str = Field(min_length=1, description="SQLAlchemy's address of the ledger, as postgresql+psycopg://… or sqlite:////…/ledger.db")


class Settings(BaseSettings):
    """Shared services instead of the embedded ones, deadlines of the managed local ones, other environments, and who acts."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file_encoding="utf-8-sig", extra="ignore", frozen=True, allow_inf_nan=False)

    database: SecretStr = Field(NOTHING, description="PostgreSQL for ledger, studies and locks: postgresql+psycopg://USER:…@HOST/retune")
    mlflow_uri: str = Field("", description="MLflow's server, http://… or https://…")
    mlflow_user: str = Field("", description="who we are to MLflow's server")
    mlflow_password: SecretStr = Field(NOTHING, description="the password of mlflow_user")
    mlflow_database: SecretStr = Field(
        NOTHING, description="MLflow's own database, as postgresql+psycopg://mlflow:…@HOST/mlflow: only `retune migrate` reads it"
    )
    prefect_api_url: str = Field("", description="a Prefect server to use instead of the managed local one, http://…/api")
    prefect_auth: SecretStr = Field(NOTHING, description="USER:PASSWORD, the auth string of Prefect's server")
    dvc_remote: str = Field("", description="where DVC pushes to: s3://BUCKET/PREFIX, or a folder")
    s3_endpoint: str = Field("", description="an S3 service other than Amazon's, http://…")
    s3_access_key: str = Field("", description="of the S3 service")
    s3_secret_key: SecretStr = Field(NOTHING, description="of s3_access_key")
    server_deadline: float = Field(120, gt=0, description="seconds that a server may take to start, or be gone during a run")
    server_linger: float = Field(300, ge=0, description="seconds that the managed server stays up after its last user has left")
    ledger_key: SecretStr = Field(NOTHING, description="signs the ledger's head that MLflow keeps; 16 characters or more")
    user: str = Field("", description="who promotes, as the ledger names them; the account and the machine when empty")
    notify: SecretStr = Field(
        NOTHING, description="who is told: Apprise addresses, or block:TYPE/NAME for a block of Prefect's; spaces between"
    )
    environments: Annotated[dict[str, EnvironmentSettings], NoDecode] = Field(
        default_factory=dict, description='JSON: {"production": {"mlflow": "http://…", "ledger": "postgresql+psycopg://…"}}'
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
                raise ValueError("expected postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE, found what is no address") from None
            if url.drivername != "postgresql+psycopg":
                raise ValueError(f"expected an address that begins with postgresql+psycopg://, found {url.drivername}://")
        return database

    @field_validator("mlflow_uri", "prefect_api_url", "s3_endpoint")
    @classmethod
    def _is_http(cls, address: str) -> str:
        parts = urlsplit(address)
        if address and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("expected an address that begins with http:// or https://")
        if parts.password:
            raise ValueError("expected an address without a password; RETUNE_MLFLOW_PASSWORD, RETUNE_PREFECT_AUTH … keep secrets apart")
        return address.rstrip("/")

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        for first, second in (("mlflow_user", "mlflow_password"), ("s3_access_key", "s3_secret_key")):
            if bool(getattr(self, first)) != bool(_plain(getattr(self, second))):
                raise ValueError(f"RETUNE_{first.upper()} and RETUNE_{second.upper()} go together: one of them is missing")
        return self

    def variables(self) -> dict[str, str]:
        """Return what the tools read from the environment, for this process and its children; nothing where a service is embedded."""
        found = {
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
            found["AWS_DEFAULT_REGION"] = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")  # boto3 wants one, and others have none
        return {name: value for name, value in found.items() if value}


def _plain(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def read_settings(project: Path) -> Settings:
    """Read the settings of a project; a variable wins over the file `.env`, and that over the files of `/run/secrets`.

    Raises:
        BadParams: a variable cannot be read; the message names it, and no secret.
    """
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {BASE, PROJECT, STATE}  # the last are the environment's
    ours = (name for name in of_file(project) if name.upper().startswith(PREFIX) and not name.upper().startswith(SQL))
    if unknown := [name for name in ours if name.upper() not in known]:
        raise BadParams("; ".join(f"{project / '.env'}: no setting {one}{nearest(one.upper(), sorted(known))}" for one in unknown))
    try:
        return Settings(_env_file=project / ".env", _secrets_dir=SECRETS if SECRETS.is_dir() else None)
    except ValidationError as error:
        faults = [
            (".".join(map(str, one["loc"])).upper(), one["msg"].removeprefix("Value error, ")) for one in error.errors(include_input=False)
        ]
        raise BadParams("; ".join(f"RETUNE_{where}: {says}" if where else says for where, says in faults)) from None


def of_file(project: Path) -> dict[str, str | None]:
    """Return what the file `.env` of a project sets; nothing where there is none.

    Raises:
        BadParams: it cannot be read, is not UTF-8, or sets a variable twice.
    """
    path = project / ".env"
    if not path.is_file():
        return {}
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BadParams(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise BadParams(f"{path} is not UTF-8: line {line} holds the byte 0x{error.object[error.start]:02x}; save it as UTF-8") from None
    first: dict[str, int] = {}
    for binding in parse_stream(StringIO(text)):
        if binding.key is None:
            continue
        text_of = binding.original.string  # blank lines before it included
        line = binding.original.line + text_of[: len(text_of) - len(text_of.lstrip())].count("\n")
        if binding.key in first:
            raise BadParams(f"{path}: {binding.key} is in line {first[binding.key]} and again in line {line}; keep one of them")
        first[binding.key] = line
    return dotenv_values(stream=StringIO(text))


def load_into_environment(project: Path) -> Settings:
    """Read the settings of a project, and hand the tools what they read from the environment."""
    settings = read_settings(project)
    found = settings.variables() | databases(project)
    if not settings.prefect_api_url:  # the managed server has a credential of its own
        found.pop("PREFECT_API_AUTH_STRING", None)
    os.environ.update(found)
    close_to_others(project / "var")
    warn_of_readers(project / ".env")
    return settings


def warn_of_readers(file: Path) -> None:
    """Say once that other accounts can read a file that names services with their passwords."""
    try:
        mode = file.stat().st_mode & 0o777
    except OSError:
        return
    if mode & 0o004 and file not in _WARNED:
        _WARNED.add(file)
        log.warning("%s can be read by every account of this machine (mode %o), and may hold passwords: `chmod 600 %s`", file, mode, file)


def databases(project: Path) -> dict[str, str]:
    """Return the addresses of databases that are no variables yet: of `.env`, and of the files of `/run/secrets`."""
    files = {path.name.upper(): path for path in SECRETS.iterdir()} if SECRETS.is_dir() else {}
    secrets = {name: path.read_text(encoding="utf-8").strip() for name, path in files.items() if name.startswith(SQL)}
    found = secrets | {name: value for name, value in of_file(project).items() if name.startswith(SQL)}
    return {name: value for name, value in found.items() if value and name not in os.environ}
