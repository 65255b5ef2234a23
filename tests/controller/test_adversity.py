"""What goes wrong around a job: the operator, its watches, the cluster's refusals, its nodes, the past."""

import asyncio
import logging
import time

from swarm_operator.backends.kubernetes import paths

EVERYBODY = ("mnist-synchronizer-1", "mnist-particle-0-1", "mnist-particle-1-1")


def test_a_restarted_operator_takes_over_where_the_last_one_was(play):
    async def story(stage):
        await stage.create_job()
        await stage.train()
        await stage.stop_operator()
        before = await stage.pods()
        await stage.end("mnist-particle-0-1", 1)
        stage.start_operator()
        after = await stage.has_pods(*EVERYBODY, "mnist-particle-0-2")
        assert all(after[name]["metadata"]["uid"] == pod["metadata"]["uid"] for name, pod in before.items())
        assert (await stage.status_is(state="Degraded"))["attempts"]["0"]["incarnation"] == 2

    play(story)


def test_what_vanished_while_the_operator_was_away_is_never_made_again(play):
    async def story(stage):
        await stage.create_job()
        await stage.train()
        await stage.stop_operator()
        await stage.delete_pod("mnist-particle-0-1")
        stage.start_operator()
        await stage.has_pods("mnist-synchronizer-1", "mnist-particle-0-2", "mnist-particle-1-1")

    play(story)


def test_a_job_that_is_deleted_while_the_operator_is_away_leaves_it_nothing_to_do(play):
    async def story(stage):
        job = await stage.create_job()
        await stage.train()
        assert "finalizers" not in (await stage.job())["metadata"]
        assert "annotations" not in (await stage.job())["metadata"]
        await stage.stop_operator()
        await stage.admin.delete(paths.jobs(stage.namespace, "mnist"), job["metadata"]["uid"])
        pods = await stage.pods()
        stage.start_operator()
        await stage.end("mnist-particle-0-1", 1)
        await asyncio.sleep(1.5)
        assert set(await stage.pods()) == set(pods), "they are Kubernetes' to delete now"

    play(story)


def test_the_watches_begin_anew_when_they_end(play):
    async def story(stage):
        await stage.create_job()
        await stage.train()
        (watching,) = [task for task in asyncio.all_tasks() if task.get_name() == "multidimensional multitasker"]
        watching.cancel()
        await asyncio.sleep(0.2)
        await stage.end("mnist-particle-0-1", 1)
        await stage.has_pods(*EVERYBODY, "mnist-particle-0-2")

    play(story)


def test_pods_of_an_older_job_of_the_same_name_are_left_alone(play):
    async def story(stage):
        old = await stage.create_job()
        before = await stage.has_pods(*EVERYBODY)
        await stage.admin.delete(paths.jobs(stage.namespace, "mnist"), old["metadata"]["uid"])
        await stage.create_job()
        after = await stage.has_pods(*EVERYBODY, "mnist-synchronizer-2", "mnist-particle-0-2", "mnist-particle-1-2")
        assert all(after[name]["metadata"]["uid"] == pod["metadata"]["uid"] for name, pod in before.items())
        status = await stage.status_is(observedGeneration=1)
        assert status["recovery"]["count"] == 0
        assert not [reason for reason, _ in await stage.events() if "Lost" in reason or "Failed" in reason]

    play(story)


def test_orphans_of_an_older_job_of_the_same_name_are_left_alone_too(play):
    async def story(stage):
        old = await stage.create_job()
        before = await stage.has_pods(*EVERYBODY)
        await stage.admin.delete(paths.jobs(stage.namespace, "mnist"), old["metadata"]["uid"])
        for name in before:
            await stage.admin.patch(paths.pods(stage.namespace, name), {"metadata": {"ownerReferences": None}})
        await stage.create_job()
        after = await stage.has_pods(*EVERYBODY, "mnist-synchronizer-2", "mnist-particle-0-2", "mnist-particle-1-2")
        assert all(after[name]["metadata"]["uid"] == pod["metadata"]["uid"] for name, pod in before.items())

    play(story)


def test_a_strangers_pod_in_the_place_of_a_particle_is_named_and_awaited(play):
    async def story(stage):
        stranger = {"metadata": {"name": "mnist-particle-0-1"}, "spec": {"containers": [{"name": "c", "image": "c"}]}}
        await stage.admin.create(paths.pods(stage.namespace), {"apiVersion": "v1", "kind": "Pod", **stranger})
        await stage.create_job()

        async def why():
            return (await stage.condition("Running"))[2]

        said = await stage.until(why, lambda message: "NameTaken" in message)
        assert f"kubectl delete pod mnist-particle-0-1 --namespace {stage.namespace}" in said
        await stage.delete_pod("mnist-particle-0-1", grace=0)
        pods = await stage.has_pods(*EVERYBODY)
        assert all("ownerReferences" in pod["metadata"] for pod in pods.values())

    play(story)


def test_a_template_that_no_server_takes_is_named_and_can_be_repaired(play):
    async def story(stage):
        broken = {
            "spec": {
                "containers": [
                    {"name": "trainer", "image": "mine", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
                ]
            }
        }
        await stage.create_job(template=broken)

        async def accepted():
            return await stage.condition("Accepted")

        _, reason, message = await stage.until(accepted, lambda condition: condition[0] == "False")
        assert reason == "InvalidTemplate"
        assert 'volumeMounts[0].name: Not found: "data"' in message
        await stage.has_pods("mnist-synchronizer-1")
        await stage.told("NotAccepted")
        await stage.change_job({"suspend": True})
        await stage.has_pods()
        await stage.status_is(state="Suspended")
        whole = {"spec": {"containers": [{"name": "trainer", "image": "mine"}]}}
        await stage.change_job({"suspend": False, "particles": {"template": whole}})
        await stage.until(accepted, lambda condition: condition[0] == "True")

    play(story)


def test_a_quota_is_named_and_awaited(play):
    async def story(stage):
        quota = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "few"},
            "spec": {"hard": {"pods": "2"}},
        }
        path = f"api/v1/namespaces/{stage.namespace}/resourcequotas"
        await stage.admin.create(path, quota)
        await stage.admin.patch(f"{path}/few/status", {"status": {"hard": {"pods": "2"}, "used": {"pods": "0"}}})
        await stage.create_job()
        await stage.until(stage.pods, lambda pods: len(pods) == 2)

        async def why():
            return (await stage.condition("Running"))[2]

        await stage.until(why, lambda message: "exceeded quota: few" in message)
        more = {"hard": {"pods": "10"}}
        await stage.admin.patch(f"{path}/few", {"spec": more})
        await stage.admin.patch(f"{path}/few/status", {"status": more})
        await stage.has_pods(*EVERYBODY)

    play(story)


def test_a_pod_on_a_silent_node_is_replaced_elsewhere_before_kubernetes_gives_it_up(play):
    async def story(stage):
        node = f"{stage.namespace}-node"
        await stage.create_node(node)
        await stage.create_job()
        await stage.has_pods(*EVERYBODY)
        await stage.bind("mnist-particle-0-1", node)
        await stage.train()
        before = await stage.pods()
        begun = time.monotonic()
        await stage.renew_lease(node, seconds_ago=20)
        await stage.say((0, 1), (1, 1))
        for silence in range(12):
            quiet = stage.report.particles[0].model_copy(update={"silent_seconds": float(silence)})
            stage.report = stage.report.model_copy(update={"particles": (quiet, stage.report.particles[1])})
            await asyncio.sleep(1)
        pods = await stage.has_pods("mnist-synchronizer-1", "mnist-particle-0-2", "mnist-particle-1-1", seconds=5)
        assert time.monotonic() - begun < 20
        (term,) = pods["mnist-particle-0-2"]["spec"]["affinity"]["nodeAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]["nodeSelectorTerms"]
        assert term == {"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": [node]}]}
        assert all(pods[name]["metadata"]["uid"] == before[name]["metadata"]["uid"] for name in pods if name in before)
        attempt = (await stage.status_is(state="Degraded"))["attempts"]["0"]
        assert attempt["lastReason"] == "NodeLost"
        assert "failures" not in attempt

    play(story)


def test_a_node_that_turned_a_pod_away_gets_no_other(play):
    async def story(stage):
        node = f"{stage.namespace}-node"
        await stage.create_node(node)
        await stage.create_job()
        await stage.has_pods(*EVERYBODY)
        await stage.bind("mnist-particle-0-1", node)
        message = "Pod was rejected: Node didn't have enough resource: cpu, requested: 1, used: 1, capacity: 1"
        await stage.set_pod("mnist-particle-0-1", phase="Failed", reason="OutOfcpu", message=message)
        pods = await stage.has_pods(*EVERYBODY, "mnist-particle-0-2")
        assert node in str(pods["mnist-particle-0-2"]["spec"]["affinity"])
        attempt = (await stage.status_is(state="Pending"))["attempts"]["0"]
        assert "failures" not in attempt

    play(story)


def test_in_a_namespace_that_is_going_nothing_can_be_made_and_nobody_is_told_so(play, caplog):
    async def story(stage):
        await stage.create_job()
        await stage.train()
        caplog.set_level(logging.DEBUG, "swarm_operator")
        path = f"api/v1/namespaces/{stage.namespace}"
        await stage.admin.delete(path, (await stage.admin.get(path))["metadata"]["uid"])
        await stage.end("mnist-particle-0-1", 1)
        await stage.status_is(state="Degraded")

        async def log():
            return caplog.text

        await stage.until(log, lambda text: "an event is lost" in text)

    play(story)
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
