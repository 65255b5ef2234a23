"""What the watch of pods makes of a server that ends watches, forgets versions, is away, or says no."""

import asyncio
import json

import pytest
from aiohttp import web

from swarm_operator.backends.kubernetes.client import ApiError, Client
from swarm_operator.backends.kubernetes.labels import JOB_NAME
from swarm_operator.cluster import podwatch
from swarm_operator.cluster.podwatch import watch_pods


def a_pod(name, version):
    metadata = {"namespace": "team", "name": name, "labels": {JOB_NAME: name}, "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {}}


def a_list(version, *pods):
    return web.json_response({"metadata": {"resourceVersion": str(version)}, "items": list(pods)})


def events(*events):
    lines = (json.dumps({"type": kind, "object": raw}) for kind, raw in events)
    return web.Response(text="".join(f"{line}\n" for line in lines))


def watched(tmp_path, *answers):
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
            if found is None:
                all_given.set()
                await asyncio.sleep(60)
            return found

        application = web.Application()
        application.router.add_get("/api/v1/pods", answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        kubeconfig = tmp_path / "kubeconfig"
        context = {"name": "x", "context": {"cluster": "x", "user": "x"}}
        clusters = [{"name": "x", "cluster": {"server": f"http://{host}:{port}"}}]
        users = [{"name": "x", "user": {"token": "t"}}]
        kubeconfig.write_text(
            json.dumps({"current-context": "x", "contexts": [context], "clusters": clusters, "users": users})
        )
        client = await Client.connect(str(kubeconfig))
        try:
            watching = asyncio.create_task(watch_pods(client, "", on_list, on_event))
            waiting = asyncio.create_task(all_given.wait())
            await asyncio.wait((watching, waiting), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if watching.done():
                watching.result()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        finally:
            await client.close()
            await runner.cleanup()

    asyncio.run(asyncio.wait_for(story(), 20))
    return asked, told


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


def test_a_server_that_is_away_is_asked_again_and_one_that_refuses_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(podwatch, "PAUSE_SECONDS", 0.01)
    asked, _ = watched(tmp_path, a_list(7), web.Response(status=500), a_list(8))
    assert asked == [None, "7", None, "8"]
    with pytest.raises(ApiError, match="403"):
        watched(tmp_path, web.json_response({"reason": "Forbidden", "message": "no"}, status=403))
