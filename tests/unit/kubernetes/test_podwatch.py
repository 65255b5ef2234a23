"""What the watch of pods makes of a server that ends watches, forgets versions, is away, or says no."""

import asyncio
import json

import pytest
from aiohttp import web

from swarm_operator.backends.kubernetes.client import Client
from swarm_operator.backends.kubernetes.labels import JOB_NAME
from swarm_operator.cluster import podwatch
from swarm_operator.cluster.podwatch import PodWatch
from unit.kubernetes.objects import serving

SILENCE = object()
"""The answer of a server that has gone without a word."""


def a_pod(name, version):
    metadata = {"namespace": "team", "name": name, "labels": {JOB_NAME: name}, "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {}}


def a_list(version, *pods):
    return web.json_response({"metadata": {"resourceVersion": str(version)}, "items": list(pods)})


def events(*events):
    lines = (json.dumps({"type": kind, "object": raw}) for kind, raw in events)
    return web.Response(text="".join(f"{line}\n" for line in lines))


def watched(tmp_path, *answers, seen=None):
    """What was asked (versions; None for a list) and told, when the server has given these answers and then hangs."""
    asked, told = [], []

    def on_list(found, version):
        told.append((version, [key for key, _ in found]))

    def on_event(kind, pod):
        told.append((kind, pod["metadata"]["name"]))

    async def story():
        left, all_given = iter(answers), asyncio.Event()

        async def answer(request):
            asked.append(request.query.get("resourceVersion"))
            found = next(left, None)
            if found is SILENCE:
                found = web.StreamResponse()
                await found.prepare(request)
                await asyncio.sleep(1)
            if found is None:
                all_given.set()
                await asyncio.sleep(60)
            return found

        async with serving("/api/v1/pods", answer) as address:
            kubeconfig = tmp_path / "kubeconfig"
            context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
            clusters = [{"name": "x", "cluster": {"server": f"http://{address}"}}]
            users = [{"name": "x", "user": {"token": "t"}}]
            kubeconfig.write_text(
                json.dumps({"current-context": "x", "contexts": [context], "clusters": clusters, "users": users})
            )
            client = await Client.connect(str(kubeconfig))
            watching = asyncio.create_task(PodWatch(client, "", on_list, seen or on_event).run())
            try:
                await all_given.wait()
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                await client.close()

    asyncio.run(asyncio.wait_for(story(), 20))
    return asked, told


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(podwatch, "FIRST_PAUSE", 0.01)


def test_a_watch_that_ends_goes_on_where_it_was(tmp_path):
    asked, told = watched(
        tmp_path,
        a_list(7, a_pod("a", 5)),
        events(("ADDED", a_pod("b", 8)), ("BOOKMARK", a_pod("", 12))),
        events(("DELETED", a_pod("a", 13))),
    )
    assert asked == [None, "7", "12", "13"]
    assert told == [(7, [("team", "a")]), ("ADDED", "b"), ("DELETED", "a")]


def test_a_version_that_the_server_has_forgotten_is_a_new_list(tmp_path):
    gone = {"code": 410, "reason": "Expired", "message": "too old", "metadata": {}}
    asked, told = watched(tmp_path, a_list(7), events(("ERROR", gone)), a_list(20, a_pod("a", 15)))
    assert asked == [None, "7", None, "20"]
    assert told == [(7, []), (20, [("team", "a")])]


@pytest.mark.parametrize("status", [403, 429, 500])
def test_a_server_that_is_away_or_refuses_is_asked_again_for_what_comes_after(tmp_path, status, caplog):
    refusal = [web.json_response({"reason": "No", "message": "no"}, status=status) for _ in range(2)]
    asked, _ = watched(tmp_path, a_list(7), refusal[0], events(("ADDED", a_pod("a", 9))), refusal[1])
    assert [version for version in asked if version is None] == [None]
    assert asked[-1] == "9"
    assert "watched again in" in caplog.text


def test_a_login_that_is_over_is_renewed_by_a_list(tmp_path):
    asked, _ = watched(tmp_path, a_list(7), web.Response(status=401), a_list(8))
    assert asked == [None, "7", None, "8"]


def test_a_watch_on_which_nothing_comes_is_dead_and_begun_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("swarm_operator.backends.kubernetes.client.SILENT_SECONDS", 0.2)
    asked, _ = watched(tmp_path, a_list(7), SILENCE)
    assert asked == [None, "7", "7"]
    assert "cannot be reached" in caplog.text


def test_an_event_that_nobody_can_read_does_not_end_the_watch(tmp_path, caplog):
    told = []

    def seen(kind, pod):
        if pod["metadata"]["name"] == "odd":
            raise KeyError("nodeName")
        told.append(pod["metadata"]["name"])

    watched(tmp_path, a_list(7), events(("ADDED", a_pod("odd", 8)), ("ADDED", a_pod("a", 9))), seen=seen)
    assert told == ["a"]
    assert "an event of pod odd is left out" in caplog.text
