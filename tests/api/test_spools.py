"""What gateways hold, and that a spool is lost: an administrator's to see and to say."""

from __future__ import annotations

from bessemer.core.bounds import Ask, Want
from tests.api.world import BASE, World

KEY = {
    "apiVersion": "bessemer.dev/v1alpha1",
    "kind": "ApiKey",
    "metadata": {"name": "app", "namespace": "acme--lab"},
    "spec": {"budget": {"period": "Total", "tokens": 100}},
}


async def test_a_spool_is_lost_by_an_administrators_word(w: World) -> None:
    assert (await w.call("POST", f"{BASE}/namespaces/acme--lab/apikeys", KEY)).code == 201
    wants = [Want(scope="key/acme--lab/app", meter="tokens/total", amount=60)]
    assert (await w.store.bounds.hold("acme--lab", Ask(holder="g", after=0, key="app", wants=wants))).stands
    (held,) = (await w.call("GET", "/spools")).json["holds"]
    assert (held["holder"], held["project"]) == ("g", "acme--lab")
    assert held["parts"] == [{"scope": "key/acme--lab/app", "meter": "tokens/total", "amount": 60}]
    rob = await w.login("rob")
    for method, path in (("GET", "/spools"), ("POST", "/spools/forget")):
        assert (await w.call(method, path, {"holder": "g"} if method == "POST" else None, token=rob)).code == 403
    assert (await w.call("POST", "/spools/forget", {"holder": "g"})).code == 409, "it was heard of just now"
    assert (await w.call("POST", "/spools/forget", {"holder": "nobody"})).code == 404
    for wrong in ({}, {"holder": 7}, {"holder": ""}):
        assert (await w.call("POST", "/spools/forget", wrong)).code == 400
