"""The ledger's head as tags in MLflow: on the registered model, and on each version that became champion.

To tamper with the ledger unnoticed, these tags must be rewritten too, and signed if a key is set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlflow import MlflowClient

from components.core.errors import RetuneError
from components.ledger import Chain, ChainHead, Ledger
from components.ledger.chain import has_key
from components.mlflow_store.connection import connect, if_exists, translated_errors
from components.mlflow_store.registry.versions import LEDGER, Version, search

_SHOWN = 5  # faults in a message


@dataclass(frozen=True)
class HeadCheck:
    """The ledger's chain compared with the head that MLflow stores for one model; `kept` is None if it stores none yet."""

    chain: Chain
    kept: ChainHead | None
    faults: tuple[str, ...]

    @property
    def signature(self) -> str:
        """The signer of the head that MLflow stores."""
        if self.kept is None or not self.kept.signature:
            return "not signed"
        return f"signed by key {self.kept.signer}" + ("" if has_key() else ", which is not checked: RETUNE_LEDGER_KEY is not set")


def verify(uri: str, ledger_url: str, name: str) -> HeadCheck:
    """Verify the ledger's chain, and that it contains the head that MLflow stores for a model."""
    with translated_errors(uri):
        return check(connect(uri), Ledger(ledger_url), name)


def check(client: MlflowClient, ledger: Ledger, name: str) -> HeadCheck:
    """Verify like `verify`, with an existing client."""
    while True:
        # MLflow's tags are read first: others may write meanwhile, and MLflow is never ahead of the ledger.
        kept = _kept(client, name)
        version_heads = {version.uri: ChainHead.read(version.tags[LEDGER]) for version in search(client, name) if LEDGER in version.tags}
        result = _compare(ledger, name, kept, version_heads)
        if not result.faults or _kept(client, name) == kept:  # otherwise a new chain was started meanwhile
            return result


def _compare(ledger: Ledger, name: str, kept: ChainHead | None, version_heads: Mapping[str, ChainHead]) -> HeadCheck:
    chain = ledger.chain()
    faults = list(chain.faults)
    if kept is None:
        if version_heads:
            faults.append(f"{next(iter(version_heads))} has the tag {LEDGER}, but the registered model has none: it was deleted there")
        if has_key() and ledger.head(name) is not None:
            faults.append(f"MLflow stores no signed head of the ledger for {name}, but RETUNE_LEDGER_KEY is set")
        return HeadCheck(chain, kept, tuple(faults))
    heads = {f"the registered model {name} in MLflow": kept}
    # A champion of an earlier chain, which a person replaced by this one, refers to that chain.
    heads |= {f"{uri} in MLflow": head for uri, head in version_heads.items() if head.begun == kept.begun}
    faults += [fault for source, head in heads.items() if (fault := chain.lacks(head, source))]
    faults += [f"the head that {source} names {why}" for source, head in heads.items() if (why := head.unsigned_because())]
    return HeadCheck(chain, kept, tuple(faults))


def require_intact(client: MlflowClient, ledger: Ledger, name: str) -> None:
    """Reject a ledger whose chain is broken or differs from the one that MLflow refers to.

    Raises:
        RetuneError: the ledger was changed, or its head is signed and no key is set here.
    """
    result = check(client, ledger, name)
    if result.faults:
        raise RetuneError(
            f"the ledger {ledger} was changed, so it is not applied: {join_faults(result.faults)}. `retune history {name} --verify` shows "
            "details. Restore a copy of the ledger; if its present content is right, `retune reconcile --accept --why TEXT` starts a new "
            "chain over it"
        )
    if result.kept is not None and result.kept.signature and not has_key():
        raise RetuneError(
            f"the head of the ledger {ledger} is signed by the key {result.kept.signer}, but RETUNE_LEDGER_KEY is not set: set it, because "
            "an unsigned entry cannot be told from a forged one"
        )


def join_faults(faults: Sequence[str]) -> str:
    """Return the first faults as one text."""
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return "; ".join(faults[:_SHOWN]) + more


def store_head(client: MlflowClient, ledger: Ledger, name: str, champion: Version | None = None) -> None:
    """Store the ledger's head in MLflow: on the registered model, and once per chain on the `champion` version."""
    model = if_exists(client.get_registered_model, name)
    if model is None:
        return
    if has_key() and ledger.chain_head() is None:
        ledger.begin_chain()
    head = ledger.chain_head()
    if head is None:
        return
    text = head.signed().as_text()
    if model.tags.get(LEDGER) != text:
        client.set_registered_model_tag(name, LEDGER, text)
    if champion is not None and ChainHead.read(champion.tags.get(LEDGER, "")).begun != head.begun:
        client.set_model_version_tag(name, str(champion.number), LEDGER, text)


def _kept(client: MlflowClient, name: str) -> ChainHead | None:
    model = if_exists(client.get_registered_model, name)
    text = model.tags.get(LEDGER) if model else None
    return None if text is None else ChainHead.read(text)
