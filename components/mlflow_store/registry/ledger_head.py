"""The ledger's head, kept outside the ledger: in a tag of the registered model, and of each version that became champion.

Whoever rewrites the ledger with all its hashes must rewrite these tags, too, and sign them where a key is set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from components.core.errors import RetuneError
from components.ledger import Chain, ChainHead, Ledger
from components.ledger.chain import has_key
from components.mlflow_store.connection import connect, translated_errors
from components.mlflow_store.registry.versions import LEDGER, Version, search

_SHOWN = 5  # faults in a message


@dataclass(frozen=True)
class HeadCheck:
    """The ledger's chain against what MLflow keeps of it for one model: `kept` is None where it keeps nothing yet."""

    chain: Chain
    kept: ChainHead | None
    faults: tuple[str, ...]

    @property
    def signature(self) -> str:
        """Who signed the head that MLflow keeps."""
        if self.kept is None or not self.kept.signature:
            return "not signed"
        return f"signed by key {self.kept.signer}" + ("" if has_key() else ", which is not checked: RETUNE_LEDGER_KEY is not set")


def verify(uri: str, ledger_url: str, name: str) -> HeadCheck:
    """Verify the ledger's chain, and that it contains what MLflow keeps of it for a model."""
    with translated_errors(uri):
        return check(connect(uri), Ledger(ledger_url), name)


def check(client: MlflowClient, ledger: Ledger, name: str) -> HeadCheck:
    """Do what `verify` does, with a client."""
    while True:
        # What MLflow keeps is read first: others may write meanwhile, and it is never ahead of the ledger.
        kept, of_versions = _kept(client, name), _heads_of_versions(client, name)
        found = _compare(ledger, name, kept, of_versions)
        if not found.faults or _kept(client, name) == kept:  # else a new chain was begun in between
            return found


def _compare(ledger: Ledger, name: str, kept: ChainHead | None, of_versions: Mapping[str, ChainHead]) -> HeadCheck:
    chain = ledger.chain()
    faults = list(chain.faults)
    if kept is None:
        if of_versions:
            faults.append(f"{next(iter(of_versions))} has the tag {LEDGER}, and the registered model has none: it was deleted there")
        if has_key() and ledger.head(name) is not None:
            faults.append(f"MLflow keeps no signed head of the ledger for {name}, and RETUNE_LEDGER_KEY is set")
        return HeadCheck(chain, kept, tuple(faults))
    heads = {f"the registered model {name} in MLflow": kept}
    # A champion of an earlier chain, over which a person began this one, names that one.
    heads |= {f"{called} in MLflow": head for called, head in of_versions.items() if head.begun == kept.begun}
    faults += [fault for called, head in heads.items() if (fault := chain.lacks(head, called))]
    faults += [f"the head that {called} names {why}" for called, head in heads.items() if (why := head.unsigned_because())]
    return HeadCheck(chain, kept, tuple(faults))


def require_intact(client: MlflowClient, ledger: Ledger, name: str) -> None:
    """Refuse a ledger whose chain is broken, or not the one that MLflow knows.

    Raises:
        RetuneError: the ledger was changed, or its head is signed and no key is set here.
    """
    found = check(client, ledger, name)
    if found.faults:
        raise RetuneError(
            f"the ledger {ledger} is not what was written, so nothing follows it: {join_faults(found.faults)}. `retune history {name} --verify` "
            "shows all of it. Restore a copy of the ledger; if it is right as it is, `retune reconcile --accept --why TEXT` begins a new "
            "chain over it"
        )
    if found.kept is not None and found.kept.signature and not has_key():
        raise RetuneError(
            f"the head of the ledger {ledger} is signed by the key {found.kept.signer}, and RETUNE_LEDGER_KEY is not set: set it, since "
            "an unsigned entry looks like one of a stranger"
        )


def join_faults(faults: Sequence[str]) -> str:
    """Return the first faults as one text."""
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return "; ".join(faults[:_SHOWN]) + more


def store_head(client: MlflowClient, ledger: Ledger, name: str, champion: Version | None = None) -> None:
    """Let MLflow keep the ledger's head: on the registered model, and once a chain on the version that is `champion` by it."""
    tags = _tags(client, name)
    if tags is None:
        return
    if has_key() and ledger.chain_head() is None:
        ledger.begin_chain()
    head = ledger.chain_head()
    if head is None:
        return
    text = head.signed().as_text()
    if tags.get(LEDGER) != text:
        client.set_registered_model_tag(name, LEDGER, text)
    if champion is not None and ChainHead.read(champion.tags.get(LEDGER, "")).begun != head.begun:
        client.set_model_version_tag(name, str(champion.number), LEDGER, text)


def _tags(client: MlflowClient, name: str) -> dict[str, str] | None:
    """Return the tags of a registered model; None where there is no such model."""
    try:
        return dict(client.get_registered_model(name).tags)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _kept(client: MlflowClient, name: str) -> ChainHead | None:
    text = (_tags(client, name) or {}).get(LEDGER)
    return None if text is None else ChainHead.read(text)


def _heads_of_versions(client: MlflowClient, name: str) -> dict[str, ChainHead]:
    return {version.uri: ChainHead.read(version.tags[LEDGER]) for version in search(client, name) if LEDGER in version.tags}
